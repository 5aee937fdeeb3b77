"""Whether a change of the code changed a picture: SHA-256 of the pixels of some seventy calls.

No paper: for whoever moves code about. Every parameterization, transform, preset, driver and kind
of optimizer, batches, continued runs, many objectives at once and networks of one's own, small and
short, with the default network and with two that are made here.

    python experiments/pixel_digests.py before.json                 # on the commit before
    python experiments/pixel_digests.py after.json --against before.json

Runtime: about 6 minutes on two cores. The numbers are those of one machine, one version of JAX and
one Python: compiled code differs between them in its last bits. It showed that the move of all
modules into rooms changed no pixel.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import studies
from flax import nnx

import featvis as fv

SIZE = (48, 40)
SHORT: dict[str, Any] = {"steps": 6, "progress": False}


class Small(nnx.Module):
    """A network with a dead branch, a residual sum and scores."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.deep = nnx.Conv(8, 8, (3, 3), rngs=rngs)
        self.head = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Scores (n, 5) of images (n, h, w, 3)."""
        x = nnx.relu(self.norm(self.stem(x)))
        x = nnx.relu(self.deep(x)) + x
        return self.head(x.mean((1, 2)))


def channels_first() -> fv.Model:
    """A function of JAX whose maps have their channels first, with taps."""
    rng = np.random.default_rng(0)
    kernel = (rng.normal(size=(6, 3, 3, 3)) / 4).astype(np.float32)

    def apply(params: Any, x: jax.Array) -> jax.Array:
        y = jax.lax.conv_general_dilated(x.transpose(0, 3, 1, 2), params, (2, 2), "SAME")
        y = fv.tap(jax.nn.gelu(y) + jnp.arctan(y), "maps")
        return y.mean((2, 3))

    return fv.from_function(apply, kernel, input=fv.Input(size=SIZE))


def photographs(count: int) -> np.ndarray:
    """Smooth coloured images (count, h, w, 3), the same everywhere."""
    y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in SIZE), indexing="ij")
    waves = [
        [np.sin(7 * (i + 1) * x + 3 * c + i) * np.cos(5 * y * (c + 1) - i) for c in range(3)]
        for i in range(count)
    ]
    return (0.5 + 0.4 * np.moveaxis(np.asarray(waves), 1, -1)).astype(np.float32)


def calls() -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Names of calls, and what gives their pictures."""
    lite = fv.load("efficientnet_lite0")
    own = fv.from_nnx(Small(nnx.Rngs(0)), input=fv.Input(size=SIZE))
    first = channels_first()
    images = photographs(2)
    t = fv.transforms

    def of(what: Any, way: Any = None, model: fv.Model = lite, **options: Any) -> Any:
        way = fv.Fourier(SIZE) if way is None else way
        return lambda: fv.synthesize(model, what, way, **{**SHORT, **options}).images

    ways = {
        "fourier": fv.Fourier(SIZE),
        "fourier odd": fv.Fourier((33, 47), decay=1.0),
        "pixels": fv.Pixels(SIZE),
        "bounded box": fv.BoundedPixels(SIZE, sd=0.1),
        "bounded ball": fv.BoundedPixels(SIZE, ball="pixel", radius=0.5, sd=0.1, noise="uniform"),
        "pyramid": fv.Pyramid(SIZE),
        "cppn": fv.CPPN(SIZE),
        "maco": fv.MaCo(SIZE),
        "upsampled": fv.Upsampled(SIZE, of=fv.Pixels((24, 20))),
        "framed": fv.Framed(SIZE, of=fv.Pixels(SIZE), frame=(4, 4)),
        "frozen": fv.FrozenChannels(SIZE, free=fv.Pixels(SIZE, 2), frozen=(0,)),
    }
    yield from ((f"way {name}", of("block2:3", way)) for name, way in ways.items())
    seen = {
        "none": "none",
        "affine": "affine",
        "standard": "standard",
        "maco": "maco",
        "pad jitter": t.Compose((t.Pad(4, "edge"), t.Jitter(8))),
        "crop": t.RandomCrop((32, 32)),
        "roll": t.Roll(5),
        "scale": t.RandomScale(0.8, 1.2, "constant"),
        "rotate": t.Rotate(-20, 20, "edge"),
        "resized crop": t.RandomResizedCrop(0.3, 0.9, None),
        "normal crop": t.NormalCrop(t.LinearSchedule(0.6, 0.2)),
        "blur": t.Blur(1.0),
        "noise": t.Noise(0.05),
        "flip": t.Flip(),
        "color": t.ColorShift(0.3),
        "affine edge": t.RandomAffine((0.7, 1.3), (-30, 30), 6, "edge", frame=3),
    }
    yield from ((f"transform {k}", of("block2:5", transform=v)) for k, v in seen.items())
    rules = {
        "adam": "adam(0.05)",
        "chain": "chain(clip(1.0), sgd(0.5, momentum=0.9))",
        "polyak": "polyak_sgd(1.0)",
        "adagrad": "preimage_adagrad(stepwise_schedule((1e5, 1e4), (3, 3)))",
        "momentum": "preimage_momentum(0.004, 20.0)",
        "object": optax.adam(0.02),
    }
    yield from ((f"optimizer {k}", of("block2:7", optimizer=v)) for k, v in rules.items())
    units = {
        "neuron": "block4:3@2,2",
        "layer": "block2",
        "direction": "direction('block2', [1.0, -1.0] + [0.5]*22)",
        "logit": "logits:285",
        "probability": "log_probability(130)",
        "sheet": "block2:[0, 3, 5]",
        "priors": "block2:3 - 0.1*tv - 0.5*l2 - 0.1*alpha_norm",
        "dead": "block4:3 - 100*block4:3",
    }
    yield from ((f"unit {k}", of(v)) for k, v in units.items() if k != "direction")
    vector = np.linspace(-1, 1, lite.layers(SIZE)["block2"][-1])
    yield "unit direction", of(fv.Direction("block2", vector))
    yield "unit diversity", of(fv.Channel("block2", 3) + fv.Diversity("block2"), batch=3)
    yield "unit on images", of(fv.Channel("block2", 3).on([0]) + fv.Layer("block2"), batch=2)
    yield "batch", of("block2:3", batch=4, seed=7)
    yield "seeds", of("block2:3", seed=[3, 9])
    yield "draws", of("block2:3", draws=3)
    yield "patience", of("block2:3", patience=2, steps=20)
    yield "from an image", of("block2:3", init=images)
    yield "own network", of("deep:2", model=own)
    yield "own scores", of("logits:1", model=own)
    yield "channels first", of("maps:2", model=first)

    def continued() -> np.ndarray:
        one = fv.synthesize(lite, "block2:3", fv.Fourier(SIZE), **SHORT)
        two = fv.synthesize(lite, "block2:3", fv.Pixels((56, 44)), init=one, **SHORT)
        return fv.synthesize(lite, "block2:4", fv.Pixels((56, 44)), init=two, **SHORT).images

    yield "continued", continued
    for preset in ("modern", "ijcv2016", "cvpr2015", "plug_in", "metamer"):
        options = {**SHORT, "steps": 8, "preset": preset}
        yield (
            f"invert {preset}",
            lambda options=options: fv.invert(lite, "block2", images, **options).images,
        )
        yield (
            f"invert own {preset}",
            lambda options=options: fv.invert(own, "deep", images, **options).images,
        )
    yield (
        "invert hog",
        lambda: fv.invert("hogb", "features", images[..., :1], preset="ijcv2016", **SHORT).images,
    )
    for preset in ("modern", "ijcv2016"):
        yield (
            f"caricature {preset}",
            lambda preset=preset: (
                fv.caricature(lite, "block2", images, preset=preset, strength=2, **SHORT).images
            ),
        )
    for preset in ("modern", "maco", "simonyan2013", "plug_in"):
        yield (
            f"class {preset}",
            lambda preset=preset: (
                fv.class_model(
                    lite, ["flamingo", 285], preset=preset, size=SIZE, **{**SHORT, "steps": 8}
                ).images
            ),
        )
    for weight in (0.5, 3.0):
        yield (
            f"accentuate {weight}",
            lambda weight=weight: (
                fv.accentuate(lite, "block2:3", images, layer="block1", keep=weight, **SHORT).images
            ),
        )
    yield "saliency", lambda: np.asarray(fv.explain(lite, "logits:285", images, "saliency").maps)

    def many() -> np.ndarray:
        texts = ["block2:1", "block2:2", "logits:5", "block2:3"]
        found = fv.synthesize_many(lite, texts, fv.Fourier(SIZE), batch_limit=2, **SHORT)
        return np.concatenate([result.images for _, result in found])

    yield "many", many


def main() -> int:
    """Writes the digests, and compares them with earlier ones."""
    line = studies.CommandLine(__doc__, None, quick="every eighth call")
    line.add_argument("output", type=Path, help="the JSON file that is written")
    line.add_argument("--against", type=Path, help="the file of an earlier commit")
    given = line.read()
    before = json.loads(given.against.read_text()) if given.against else {}
    found: dict[str, str] = {}
    differs = 0
    for name, call in itertools.islice(calls(), 0, None, 8 if given.quick else 1):
        started = time.perf_counter()
        pixels = np.ascontiguousarray(call(), np.float32)
        found[name] = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        other = bool(before) and before.get(name) != found[name]
        differs += other
        took = time.perf_counter() - started
        said = "  DIFFERS" if other else ""
        print(f"{name:24} {found[name][:16]} {took:6.1f} s{said}", flush=True)
        given.output.write_text(json.dumps(found, indent=1))
    compared = f", {differs} differ" if before else ""
    print(f"{len(found)} calls{compared}: {given.output}")
    return 1 if differs else 0


if __name__ == "__main__":
    studies.run(main)
