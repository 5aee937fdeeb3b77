"""One list of parameterizations, sent through every law by the tests."""

import jax
import numpy as np

from featvis import generators
from featvis.parameterizations import (
    CPPN,
    Autoencoded,
    BoundedPixels,
    Consistency,
    Figure,
    FixedNorm,
    Fourier,
    Framed,
    FrozenChannels,
    Generator,
    Inpainted,
    Latent,
    MaCo,
    NormalPrior,
    Parameterization,
    Phases,
    Pixels,
    Pyramid,
    Region,
    Shared,
    Upsampled,
)

#: (mean, c0, c1, c2) of a channel's spectrum, as MaCo has it.
ROW = (-0.4, -1.7, -1.2, 0.01)


#: What the generator of the cases makes.
MADE = (9, 14, 3)


def _decoded(params, code):
    return jax.nn.sigmoid((code @ params).reshape(MADE))


def _encoded(params, image):
    return (jax.numpy.log(image) - jax.numpy.log1p(-image)).reshape(-1) @ params


def generator():
    """A generator by its place: a linear map behind a sigmoid, and its inverse."""
    rows = np.random.default_rng(0).normal(size=(np.prod(MADE), 6))
    params = np.float32(3 * np.linalg.qr(rows)[0].T)
    return Generator(_decoded, (6,), params=params, encoder=_encoded, encoder_params=params.T / 9)


def _latent(size, **options):
    options = options if size == MADE[:2] else {**options, "resize": "linear"}
    return Latent(size, generator=generators.load("parameterization_cases:generator"), **options)


def _plug_and_play(size):
    """What samplers write images in, of the size that the generator makes."""
    made = generators.load("parameterization_cases:generator")
    pixels = BoundedPixels(size, sd=0.01)
    return [
        Autoencoded(size, of=pixels, generator=made, weight=0.1),
        Inpainted(size, of=_latent(size), box=(2, 3, 6, 9), consistency=0.1, context=0.1),
    ]


def _phases(size, channels):
    """Magnitudes as of an image, without the programs that `Phases.of` makes."""
    shape = (channels, size[0], size[1] // 2 + 1)
    return Phases(size, channels, magnitudes=np.random.default_rng(0).uniform(0, 9, shape))


def cases(size=(9, 14), channels=3):
    """One of every kind, for an image of this shape."""
    half = (size[0] + 1) // 2, (size[1] + 1) // 2
    more = _plug_and_play(size) if (*size, channels) == MADE else []
    return [
        *more,
        Pixels(size, channels),
        BoundedPixels(size, channels),
        BoundedPixels(size, channels, ball="l2", radius=2.0),
        BoundedPixels(size, channels, ball="linf", radius=0.25),
        BoundedPixels(size, channels, ball="pixel", radius=0.3),
        Fourier(size, channels),
        Fourier(size, channels, decay=0.0, sd=0.1),
        Pyramid(size, channels, levels=3),
        CPPN(size, channels, hidden=4, layers=2),
        MaCo(size, channels, template=(ROW,) * channels),
        _phases(size, channels),
        FrozenChannels(size, channels + 1, free=Fourier(size, channels), frozen=(1,), value=0.25),
        Upsampled(size, of=BoundedPixels(half, channels)),
        Framed(size, of=BoundedPixels(size, channels), frame=(0, 3)),
        Region(size, of=Fourier(size, channels), box=(size[0] // 3, 1, *half)),
        Figure(size, channels),
        Figure(size, channels, of=Pixels(size, channels), mask=Pixels(size, 1)),
        FixedNorm(size, channels),
        FixedNorm(size, channels, contrast=0.4, window=(0, 1, size[0], size[1] - 2)),
        FixedNorm(size, channels, decay=1.0),
        Shared(size, of=Fourier(size, channels), grid=(1, 2)),
        *(
            [
                _latent(size),
                _latent(size, low=-1.0, high=1.0, radius=0.5),
                _latent(size, white=True, radius=1.0),
            ]
            if channels == 3
            else []
        ),
    ]


def runs(size=(9, 14)):
    """Every kind in few programs, those that hold others around each other."""
    inner = BoundedPixels(size, noise="uniform")
    around = Region(size, of=Framed(size, of=inner, frame=(2, 3)), box=(1, 2, 7, 12))
    large = 2 * size[0], 2 * size[1]
    held = FrozenChannels(large, 4, free=Upsampled(large, of=around), frozen=(1,))
    return [
        held,
        Pixels(size),
        Fourier(size),
        Pyramid(size, levels=2),
        CPPN(size, hidden=4, layers=1),
        MaCo(size),
        _phases(size, 3),
        Figure(size),
        FixedNorm(size),
        Shared(size, of=Fourier(size), grid=(1, 1)),
        *_plug_and_play(size),
        _latent(size, prior=(NormalPrior(0.1), Consistency(0.1))),
    ]


def parts(case):
    """A case and the parameterizations in it."""
    yield case
    for value in vars(case).values():
        if isinstance(value, Parameterization):
            yield from parts(value)


def name(case):
    return type(case).__name__ + (f"-{case.ball}" if getattr(case, "ball", None) else "")
