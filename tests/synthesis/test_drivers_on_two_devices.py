"""Every driver on two devices. Run as a program, this file prints what its test asserts on."""

import json
import tempfile

import jax
import networks
import numpy as np
import pytest
from devices import printed_on
from PIL import Image

import featvis as fv
from featvis.methods import visualize

SHORT = {"steps": 2, "progress": False}
FOUR = {**SHORT, "batch": 4, "transform": "none"}


def drivers(toy, images, folder):
    """By name: what each driver makes of a batch that two devices share, as arrays."""
    size = fv.Pixels(networks.TOY_SIZE)
    units = ["relu:0", "relu:1", "relu:2", "relu:3"]
    made = fv.synthesize(toy, "relu:[0, 1]", size, **SHORT, transform="none")
    return {
        "synthesize": lambda: fv.synthesize(toy, "relu:0", size, **FOUR),
        "synthesize_many": lambda: next(
            iter(fv.synthesize_many(toy, units, size, **SHORT, transform="none"))
        )[1],
        "visualize": lambda: next(
            iter(visualize(toy, units, parameterization=size, **SHORT, transform="none"))
        )[1],
        "invert": lambda: fv.invert(toy, "relu", images, preset="metamer", **SHORT),
        "caricature": lambda: fv.caricature(toy, "relu", images, **SHORT),
        # Its distance begins at 0: its gradient there is rounding, of which Adam makes a step.
        "accentuate": lambda: fv.accentuate(
            toy,
            "relu:0",
            images,
            layer="conv",
            draws=2,
            transform="Roll(1)",
            optimizer="sgd(1.0)",
            **SHORT,
        ),
        "class_model": lambda: fv.class_model(toy, [0, 1], preset="simonyan2013", **SHORT),
        "diverse": lambda: fv.diverse(toy, "relu:0", 4, steps=4, progress=False),
        "vary_seed": lambda: fv.vary_seed(made, 2, progress=False),
        "compare_with_natural": lambda: fv.compare_with_natural(made, folder),
        "explain": lambda: fv.explain(toy, "logits:1", images, "saliency").maps,
        "sample": lambda: fv.sample("mnist_ppgn", 2, classes=[0, 1], **SHORT).result,
    }


def findings():
    toy, rng = networks.toy(), np.random.default_rng(0)
    images = rng.uniform(size=(2, *networks.TOY_SIZE, 3)).astype(np.float32)
    found = {"devices": jax.device_count(), "apart": {}}
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            Image.fromarray((255 * image).astype(np.uint8)).save(f"{folder}/{number}.png")
        for name, run in drivers(toy, images, folder).items():
            pictures = []
            for device in (None, jax.devices()[0]):
                with jax.default_device(device):
                    result = run()
                pictures.append(np.asarray(getattr(result, "images", result)))
            found["apart"][name] = float(np.abs(pictures[0] - pictures[1]).max())
    return found


@pytest.mark.thorough
def test_every_driver_makes_on_two_devices_what_it_makes_on_one():
    found = printed_on(2, __file__)
    assert found["devices"] == 2
    apart = {name: value for name, value in found["apart"].items() if not value < 1e-3}
    assert not apart


if __name__ == "__main__":
    print(json.dumps(findings()))
