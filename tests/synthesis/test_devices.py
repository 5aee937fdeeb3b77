"""Run as a program, on four devices, this file prints what its test asserts on."""

import json

import jax
import networks
import numpy as np
import pytest
from compiles import Compiled
from devices import printed_on

import featvis as fv
from featvis.results.run import Run
from featvis.synthesis import loop
from featvis.synthesis import run as synthesis_run

#: All that knows of images: numbers of each, pairs of them, a prior of the picture.
JOINT = "relu:[0, 1, 2, 3] - 0.1*diversity('conv') + 0.1*min_distance('conv') - 0.01*tv"


class Breaks(fv.Objective):
    """NaN once the image is bright."""

    def __call__(self, acts, image):
        return -jax.numpy.sqrt(0.53 - image.mean((1, 2, 3)))


def findings():
    toy, advance, calls = networks.toy(), loop.take_steps, []

    def watched(*args):
        out = advance(*args)
        weights, state = args[1], out[0]
        # The parts of the images, where their parameters are after the steps and before.
        calls.append(
            {
                "devices": len(state.params["pixels"].sharding.device_set),
                "moved": any(
                    a.sharding != b.sharding
                    for a, b in zip(
                        jax.tree.leaves(args[4][1:]), jax.tree.leaves(state[1:]), strict=True
                    )
                ),
                "weights": len(weights["conv"].sharding.device_set),
                "whole": weights["conv"].is_fully_replicated,
                "images": max(s.data.shape[0] for s in state.params["pixels"].addressable_shards),
            }
        )
        return out

    def run(model, objective, **options):
        calls.clear()
        options = {"transform": "none", "progress": False, **options}
        size = fv.Pixels(networks.TOY_SIZE)
        with Compiled() as compiled:
            result = synthesis_run.attempt(Run(model, objective, size, **options))
        moved = any(call["moved"] for call in calls)
        return result, {**calls[-1], "moved": moved, "programs": compiled.steps}

    def apart(a, b):
        fields = ("images", "scores", "clean_scores", "transformed_scores", "sensitivity")
        pairs = [(getattr(a, name), getattr(b, name)) for name in fields]
        pairs += [(a.params["pixels"], b.params["pixels"]), (a.snapshots[5], b.snapshots[5])]
        return max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in pairs)

    loop.take_steps = synthesis_run.take_steps = watched
    first = jax.devices()[0]
    # Parameters of a result are numpy; those of one's own may be on a device.
    start = {"pixels": np.random.default_rng(0).normal(0, 0.1, (4, *networks.TOY_SIZE, 3))}
    start = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), start)
    options = {"transform": "affine", "draws": 2, "steps": 20, "snapshots": [5], "seed": 3}
    joint, spread = run(toy, JOINT, init=start, **options)
    with jax.default_device(first):
        alone, one = run(toy, JOINT, init=jax.device_put(start, first), **options)

    options = {"batch": 6, "steps": 40, "optimizer": "adam(0.3)", "snapshots": [5]}
    dead, three = run(toy, "dead:1", **options)
    placed = {**toy.params, "conv": jax.device_put(toy.params["conv"], jax.devices()[1])}
    network = fv.Model("toy", toy.apply, placed, toy.labels, toy.digest, toy.input)
    dead_alone, stayed = run(network, "dead:1", **options)

    broken, _ = run(toy, Breaks().on([2]), batch=4, steps=60)
    return {
        "devices": jax.device_count(),
        "spread": spread,
        "one": one,
        "three": three,
        "stayed": stayed,
        "apart": apart(joint, alone),
        "dead apart": apart(dead, dead_alone),
        "dead score": float(dead.clean_scores.min()),
        "unlike": float(np.abs(np.diff(joint.images, axis=0)).max()),
        "stopped": broken.stopped,
        "failure": broken.failures[2],
    }


@pytest.mark.thorough
def test_images_are_spread_over_the_devices_and_the_result_is_that_of_one():
    found = printed_on(4, __file__)

    assert found["devices"] == 4
    whole = {"moved": False, "whole": True}
    # One program each: what a chunk leaves is laid out as the next one takes it.
    assert found["spread"] == {"devices": 4, "weights": 4, "images": 1, "programs": 1, **whole}
    assert found["one"] == {"devices": 1, "weights": 1, "images": 4, "programs": 1, **whole}
    # The magnification of several images at once is rounded otherwise than that of one.
    assert found["apart"] < 5e-4
    assert found["unlike"] > 0.01

    # Six images are not four equal parts. Dead units take the redirected program and the plain one.
    assert found["three"] == {"devices": 3, "weights": 3, "images": 2, "programs": 2, **whole}
    # Weights that somebody put on a device keep the run there.
    assert found["stayed"] == {"devices": 1, "weights": 1, "images": 6, "programs": 2, **whole}
    assert found["dead apart"] < 1e-4
    assert found["dead score"] > 0.1

    assert found["stopped"] == ["steps", "steps", "non-finite", "steps"]
    assert "of image 2" in found["failure"]
    assert "Breaks" in found["failure"]


if __name__ == "__main__":
    print(json.dumps(findings()))
