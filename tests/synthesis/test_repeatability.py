"""One seed gives one picture, to the bit, however often it is run: inside the compiled loop."""

import dataclasses
import functools
import hashlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv
from featvis import parameterizations, transforms
from featvis.methods import recipe as recipes
from featvis.parameterizations import Parameterization
from featvis.transforms import Compose, Transform

RUNS = 8
SIZE = (24, 20)
SMALL = {"steps": 4, "progress": False}


@functools.cache
def model():
    """Both layouts, and nonlinearities that a compiler has got wrong."""
    rng = np.random.default_rng(0)
    kernels = [rng.normal(size=s).astype(np.float32) / 4 for s in ((8, 3, 3, 3), (8, 1, 5, 5))]

    def apply(params, x):
        convolve = functools.partial(jax.lax.conv_general_dilated, padding="SAME")
        y = convolve(x.transpose(0, 3, 1, 2), params[0], (2, 2))
        y = jnp.arctan(y) + jax.nn.gelu(y) + jax.nn.relu(y)
        y = fv.tap(convolve(y, params[1], (1, 1), feature_group_count=8), "maps")
        return jnp.tanh(y).mean((2, 3))

    labels = [str(number) for number in range(8)]
    return fv.from_function(apply, kernels, input=fv.Input(size=SIZE), labels=labels)


def digest(result):
    parts = (result.images, result.scores, result.clean_scores, result.transformed_scores)
    return hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()


def assert_one_picture(run):
    results = [run() for _ in range(RUNS)]
    assert all(np.isfinite(result.images).all() for result in results)
    assert len({digest(result) for result in results}) == 1


def generator():
    """A linear generator of pictures of this size, and its inverse."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE[0] * SIZE[1] * 3, 6)))[0]

    def decode(params, code):
        return jax.nn.sigmoid((code @ params).reshape(*SIZE, 3))

    def encode(params, image):
        return (jnp.log(image) - jnp.log1p(-image)).reshape(-1) @ params

    weights, back = (3 * basis.T).astype(np.float32), (basis / 3).astype(np.float32)
    return fv.generators.from_function(decode, weights, (6,), encode=encode, encoder_params=back)


WAYS = {
    "Fourier": fv.Fourier(SIZE),
    "Pixels": fv.Pixels(SIZE),
    "BoundedPixels": fv.BoundedPixels(SIZE),
    "Pyramid": fv.Pyramid(SIZE),
    "CPPN": fv.CPPN(SIZE),
    "MaCo": fv.MaCo(SIZE),
    "Upsampled": fv.Upsampled(of=fv.Pixels((12, 10)), size=SIZE),
    "Framed": fv.Framed(SIZE, of=fv.Pixels(SIZE), frame=(4, 4)),
    "FrozenChannels": fv.FrozenChannels(SIZE, 3, free=fv.Pixels(SIZE, channels=2), frozen=(0,)),
    "Region": fv.Region(SIZE, of=fv.Pixels(SIZE), box=(1, 2, 9, 8)),
    "Figure": fv.Figure(SIZE),
    "FixedNorm": fv.FixedNorm(SIZE, decay=1.0),
    "Shared": fv.Shared(SIZE, of=fv.Pixels(SIZE)),
    "Phases": fv.Phases.of(np.random.default_rng(0).uniform(size=(*SIZE, 3)).astype(np.float32)),
    "Latent": fv.Latent(generator=generator()),
    "Autoencoded": fv.Autoencoded(SIZE, of=fv.Pixels(SIZE), generator=generator(), weight=0.1),
    "Inpainted": fv.Inpainted(
        SIZE, of=fv.Latent(generator=generator()), box=(2, 3, 6, 9), consistency=0.1, context=0.1
    ),
}


def test_every_parameterization_is_here():
    classes = {
        name
        for name, value in vars(parameterizations).items()
        if inspect.isclass(value) and issubclass(value, Parameterization)
    }
    assert classes - {"Parameterization"} == set(WAYS)


@pytest.mark.thorough
@pytest.mark.parametrize("name", WAYS)
def test_of_every_parameterization(name):
    assert_one_picture(lambda: fv.synthesize(model(), "logits:3", WAYS[name], **SMALL))


MOVES = {
    "moved": Compose(
        (
            transforms.Pad(3, border="reflect"),
            transforms.Jitter(4),
            transforms.Roll(3),
            transforms.RandomScale(),
            transforms.Rotate(),
            transforms.RandomAffine(),
        )
    ),
    "warped": Compose(
        (
            transforms.RandomAffine(border="constant", frame=2),
            transforms.RandomResizedCrop(),
            transforms.NormalCrop(0.5),
            transforms.RandomCrop((18, 16)),
        )
    ),
    "coloured": Compose(
        (
            transforms.Blur(1.0),
            transforms.Noise(0.05),
            transforms.Flip(),
            transforms.ColorShift(0.3),
            transforms.Cutout(0.3),
        )
    ),
}


def test_every_transform_is_here():
    found, left = set(), [Transform]
    while left:
        kinds = left.pop().__subclasses__()
        left += kinds
        ours = [kind for kind in kinds if kind.__module__.startswith("featvis.transforms.")]
        found |= {kind.__name__ for kind in ours}
    used = {type(one).__name__ for move in MOVES.values() for one in move.transforms}
    assert found - {"Compose"} == used


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*MOVES, *transforms.PRESETS])
def test_of_every_transform(name):
    transform = MOVES.get(name, name)
    assert_one_picture(lambda: fv.synthesize(model(), "maps:3", transform=transform, **SMALL))


PHOTOGRAPH = np.random.default_rng(1).uniform(size=(*SIZE, 3)).astype(np.float32)


# As class model: each of its stages is a program to compile.
@pytest.mark.thorough
@pytest.mark.parametrize("preset", sorted({*fv.methods.presets("inversion")} - {"plug_in"}))
def test_of_every_inversion(preset):
    steps = {**SMALL, "steps": 8}
    assert_one_picture(lambda: fv.invert(model(), "maps", PHOTOGRAPH, preset=preset, **steps))


@pytest.mark.thorough
@pytest.mark.parametrize("preset", fv.methods.presets("caricature"))
def test_of_every_caricature(preset):
    assert_one_picture(lambda: fv.caricature(model(), "maps", PHOTOGRAPH, preset=preset, **SMALL))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "preset", sorted({*fv.methods.presets("class model")} - {"exp_maximization"})
)
def test_of_every_class_model(preset, monkeypatch):
    def short(at):
        # One of each kind: its first stage, of noise, and its last, around a picture.
        recipe = fv.methods.plug_in(at)
        return dataclasses.replace(recipe, stages=recipe.stages[::6])

    monkeypatch.setitem(recipes._PRESETS["class model"], "plug_in", short)
    steps = {**SMALL, "steps": 8}
    assert_one_picture(lambda: fv.class_model(model(), 3, preset=preset, **steps))


@pytest.mark.thorough
def test_of_accentuation():
    assert_one_picture(
        lambda: fv.accentuate(model(), "logits:3", PHOTOGRAPH, layer="maps", **SMALL)
    )
