"""The samplers of DGN-AM and Plug & Play Generative Networks, as recipes.

Nguyen et al. 2016, "Synthesizing the preferred inputs for neurons in neural networks via deep
generator networks", and Nguyen et al. 2017, "Plug & Play Generative Networks: Conditional Iterative
Generation of Images in Latent Space". What draws a code is added up to

    d = ε1·(R(h) − h) + ∂(what is wanted)/∂h + N(0, ε3²)

by the parameterization's prior, the objective and `gaussian_noise`; then `normalize_by_mean_abs`
and a rate. Numbers are the authors' code's where it has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from featvis import checks
from featvis.errors import InputError
from featvis.methods.recipe import Recipe, Setting, Stage, preset, rounded
from featvis.parameterizations import (
    Autoencoded,
    BoundedPixels,
    Codes,
    Consistency,
    Generator,
    Inpainted,
    Latent,
    Reconstruction,
    Region,
)
from featvis.parameterizations.parameterization import Parameterization
from featvis.transforms import RandomAffine

#: Rates, their ends, steps, ε1, ε3 and, of inpainting, ε4 of the authors' code, by what is asked.
_AUTHORS: dict[str, dict[str, Any]] = {
    "class": {"steps": 200, "rate": 1.0, "end": 1.0, "prior": 1e-5, "noise": 1e-17},
    "unit": {"steps": 100, "rate": 1.0, "end": 1.0, "prior": 1e-5, "noise": 1e-17},
    "words": {"steps": 200, "rate": 1.0, "end": 1e-10, "prior": 1e-3, "noise": 1e-17},
    "image": {"steps": 200, "rate": 0.5, "end": 0.5, "prior": 1e-5, "noise": 1e-17},
    "inpainting": {"steps": 20, "rate": 1.0, "end": 1e-32, "prior": 1e-5, "noise": 0.0},
}
#: ε4, of the context of an inpainted image.
_CONTEXT = 1e-9
#: How far `modern` shifts what the network sees, of the shorter side.
_SHIFT = 1 / 14
#: Of a hidden unit: how often a chain begins anew, and between which numbers ε1 is drawn then.
_RESETS, _REDRAWN = 10, (1e-6, 1e-2)


@preset("modern", "sampling")
def modern_sampling(
    at: Setting,
    *,
    prior: float = 1e-3,
    noise: float = 0.02,
    rate: float = 0.1,
    context: float = 0.1,
) -> Recipe:
    """Joint PPGN-h mended: codes as natural ones vary, the true log-probability, and real noise.

    A code is written as the draw that a normal law with the mean and covariance of natural codes
    makes it of, and the draw stays as long as such draws are: a step goes along what numbers of a
    code do together, and never far from natural codes. Steps in the code itself make half digits
    and dots, of which a classifier is as certain.

    The network sees the picture turned, scaled and shifted a little, another way at each step: of a
    picture that stands still the small network of digits is certain long before there is a digit.
    Rate and noise are in units of the draw's deviation, and both fall to 0 over the chain: the
    authors' steps, which stay as long as they were, never come to rest. The gradient of the
    log-probability is scaled to the codes' variance, so that ε1 means the same for codes of any
    size. As p comes near to 1 that gradient vanishes, and the prior has the rest of the chain.

    Args:
        at: the setting.
        prior: ε1, against the gradient of the log-probability.
        noise: deviation of the first step's noise, over that of the draw.
        rate: mean change of a number of the draw at the first step, likewise.
        context: ε4 of an inpainted image, of the mean square over the picture.
    """
    _check(prior=prior, noise=noise, rate=rate, context=context)
    (steps,) = at.shares(200)
    spread = float(np.mean(np.asarray(codes_of(at).sd)))
    size = at.numbers
    written = drawn(at, latent(at), prior, context / size)
    speed = f"linear_schedule({rounded(rate)}, 0.0, {steps})"
    loud = f"linear_schedule({rounded(noise)}, 0.0, {steps})"
    rule = f"chain(normalize_by_mean_abs(), sgd({speed}), gaussian_noise({loud}))"
    shift = rounded(_SHIFT * min(at.size))
    moved = RandomAffine((0.9, 1.1), (-10.0, 10.0), shift, border="edge")
    stage = Stage(written, steps, optimizer=rule, transform=moved)
    return Recipe((stage,), weight=rounded(spread**2), of="log_probability")


@preset("ppgn_joint", "sampling")
def ppgn_joint(
    at: Setting,
    *,
    prior: float | None = None,
    noise: float | None = None,
    rate: float | None = None,
    context: float = _CONTEXT,
) -> Recipe:
    """Noiseless joint PPGN-h as the authors' code has it: a prior step towards E(G(h)).

    The code is clipped to [0, 30], begins as N(0, 1), and moves by the rate a number on average.
    "log p" is (1 − p)·∇logit, noise of 1e-17 is off, and all ε are ratios: see `modern`. Of a
    hidden unit there are ten chains of 100 steps after each other with ε1 drawn from 1e-6 to 1e-2
    for each.

    Args:
        at: the setting.
        prior: ε1; by default the authors', as are the others: 1e-5, and 1e-3 for words.
        noise: ε3.
        rate: of the steps; where theirs falls, that of the first.
        context: ε4 of an inpainted image.
    """
    _check(context=context)
    return _faithful(at, lambda weight: drawn(at, _boxed(at), weight, context), prior, noise, rate)


@preset("ppgn_h", "sampling")
def ppgn_h(
    at: Setting,
    *,
    prior: float | None = None,
    noise: float | None = None,
    rate: float | None = None,
) -> Recipe:
    """PPGN-h: as `ppgn_joint`, with the prior of a denoising autoencoder of codes.

    Args:
        at: the setting.
        prior: ε1; by default the authors', as are the others.
        noise: ε3.
        rate: of the steps.

    Raises:
        InputError: a generator without an autoencoder of its codes.
    """
    codes = codes_of(at)
    if codes.reconstruct is None:
        raise InputError(f"ppgn_h needs an autoencoder of codes, and {at.generator!r} has none")

    def written(weight: float) -> Parameterization:
        of = Reconstruction(weight, reconstruct=codes.reconstruct, params=codes.params)
        return _in_hole(at, dataclasses.replace(_boxed(at), prior=of))

    return _faithful(at, written, prior, noise, rate)


@preset("ppgn_x", "sampling")
def ppgn_x(
    at: Setting,
    *,
    prior: float | None = None,
    noise: float | None = None,
    rate: float | None = None,
) -> Recipe:
    """PPGN-x: the chain is of pixels, and the prior of an autoencoder of images, G(E(x)).

    The paper's autoencoder of images was trained to take noise away, ours is the generator after
    its encoder. The rate is in units of 1/255, as the authors' pixels are.

    Args:
        at: the setting.
        prior: ε1; by default the authors', as are the others.
        noise: ε3.
        rate: of the steps.
    """

    def written(weight: float) -> Parameterization:
        pixels = BoundedPixels(at.size, at.channels, sd=0.1)
        around = Autoencoded(at.size, of=pixels, generator=_generator(at), weight=weight)
        return _in_hole(at, around)

    return _faithful(at, written, prior, noise, rate, scale=1 / 255)


@preset("dgn_am", "sampling")
def dgn_am(at: Setting, *, rate: float = 8.0) -> Recipe:
    """DGN-AM: the code of the highest score within [0, mean + 3 sd], with no noise and no prior.

    200 steps of a rate that falls from 8 to 1e-10, from N(0, 1); 1 % of the code decays each step.
    The authors' step in pixels before that in codes changes nothing here: it scales a gradient that
    is normalised again. The last code is kept, which is not the best (`keep`); their code clips to
    [0, 3 sd], the paper to what is here.

    Args:
        at: the setting.
        rate: of the first step.
    """
    _check(rate=rate)
    (steps,) = at.shares(200)
    codes = codes_of(at)
    highest = np.asarray(codes.mean) + 3 * np.asarray(codes.sd)
    written = Latent(generator=_generator(at), low=0.0, high=highest, decay=0.01)
    falling = f"linear_schedule({rate}, 1e-10, {steps})"
    rule = f"chain(normalize_by_mean_abs(), sgd({falling}))"
    stage = Stage(_in_hole(at, written), steps, optimizer=rule, transform="none")
    return Recipe((stage,), of="score")


def _check(**given: float | None) -> None:
    """Refuses what is no number of at least 0, and a rate of 0."""
    for name, value in given.items():
        if value is not None:
            checks.number("sample", name, value, 0)
    if given.get("rate") is not None:
        checks.positive("sample", "rate", given["rate"])


def _faithful(
    at: Setting,
    written: Callable[[float], Parameterization],
    prior: float | None,
    noise: float | None,
    rate: float | None,
    scale: float = 1.0,
) -> Recipe:
    """The authors' chain of a task, with what is given in place of their numbers."""
    _check(prior=prior, noise=noise, rate=rate)
    theirs = _AUTHORS[at.task]
    (steps,) = at.shares(theirs["steps"])
    first = scale * (theirs["rate"] if rate is None else rate)
    last = first if theirs["end"] == theirs["rate"] else scale * theirs["end"]
    speed = str(first) if last == first else f"linear_schedule({first}, {last}, {steps})"
    deviation = theirs["noise"] if noise is None else noise
    rule = f"chain(gaussian_noise({deviation}), normalize_by_mean_abs(), sgd({speed}))"
    weight = theirs["prior"] if prior is None else prior
    stage = Stage(written(weight), steps, optimizer=rule, transform="none")
    resets, redrawn = 1, None
    if at.task == "unit":
        resets, redrawn = _RESETS, (_REDRAWN if prior is None else None)
    return Recipe((stage,), of="doubted_logit", resets=resets, redrawn=redrawn)


# ---- parts of recipes


def _generator(at: Setting) -> Generator:
    assert at.generator is not None  # of samplers alone
    return at.generator


def codes_of(at: Setting) -> Codes:
    """What is known of the generator's codes.

    Raises:
        InputError: nothing is.
    """
    codes = _generator(at).codes
    if codes is None:
        raise InputError(
            f"{at.generator!r} says nothing of its codes of natural images, which samples begin "
            "with: give it codes=featvis.Codes(mean=..., sd=...)"
        )
    return codes


def latent(at: Setting) -> Latent:
    """Codes of at least 0 as those of natural images, as far as a normal law knows."""
    codes = codes_of(at)
    # A normal draw of many numbers is about as long as the root of their number.
    return Latent(
        generator=_generator(at),
        mean=codes.mean,
        sd=codes.sd,
        factor=codes.factor,
        white=True,
        low=0.0,
        radius=1.0,
        sphere=True,
    )


def _boxed(at: Setting) -> Latent:
    return Latent(generator=_generator(at), low=0.0, high=30.0)


def drawn(at: Setting, of: Latent, weight: float, context: float) -> Parameterization:
    """A code that is drawn to that of its image; of an inpainted one, of the whole."""
    if at.mask is None:
        return dataclasses.replace(of, prior=Consistency(weight))
    return Inpainted(at.size, of=of, mask=at.mask, consistency=weight, context=context)


def _in_hole(at: Setting, of: Parameterization) -> Parameterization:
    return of if at.mask is None else Region(at.size, of=of, mask=at.mask)


def with_prior(written: Parameterization, weight: float) -> Parameterization:
    """The same with another ε1."""
    if isinstance(written, Inpainted):
        return dataclasses.replace(written, consistency=weight)
    if isinstance(written, Region):
        return dataclasses.replace(written, of=with_prior(written.of, weight))  # type: ignore[arg-type]
    if isinstance(written, Autoencoded):
        return dataclasses.replace(written, weight=weight)
    assert isinstance(written, Latent)
    assert written.prior is not None
    assert not isinstance(written.prior, tuple)
    return dataclasses.replace(written, prior=dataclasses.replace(written.prior, weight=weight))
