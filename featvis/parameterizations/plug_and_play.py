"""Parameterizations that Plug & Play Generative Networks need beside `Latent`.

Nguyen et al. 2017, "Plug & Play Generative Networks: Conditional Iterative Generation of Images in
Latent Space".
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks
from featvis.parameterizations.around import Around
from featvis.parameterizations.generator import Generator
from featvis.parameterizations.latent import Latent
from featvis.parameterizations.parameterization import Params
from featvis.parameterizations.region import Region
from objectives import leaf


class Autoencoded(Around):
    """An image as `of` has it, drawn to what a generator makes of its code: PPGN-x.

    The pull is `weight · (R(x) − x)` with R(x) = G(E(x)), in the parameters of `of`.

    Args:
        size: (height, width) of the image in pixels, that of `of` and of the generator.
        channels: number of channels, that of `of` (the default).
        of: parameterization of the image, which it can be encoded in, as `BoundedPixels`.
        generator: with an encoder; its weights are data of the program.
        weight: ε1, at least 0; data of the program.

    Raises:
        InputError: at construction, for a field that is out of its range or does not fit.
    """

    generator: Generator | None = None
    weight: float = leaf(default=1.0)

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        generator = self.generator
        if not isinstance(generator, Generator) or generator.encoder is None:
            raise checks.error(self, "generator", "a Generator with an encoder", generator)
        if self._of.shape != self.shape:
            expected = f"of size {self.size} and {self.channels} channels"
            raise checks.error(self, "of", expected, self.of)
        made = generator.image_for(generator.code_for(self.size))
        if made != self.shape:
            expected = f"one that makes images {self.shape}"
            raise checks.error(self, "generator", expected, f"one of {made}")
        if isinstance(self.weight, (bool, int, float)):
            checks.set_fields(self, weight=checks.number(self, "weight", self.weight, 0))

    def init(self, key: jax.Array) -> Params:
        """Draw the parameters of `of`."""
        return self._of.init(key)

    def decode(self, params: Params) -> jax.Array:
        """Turn the parameters of `of` into the image."""
        return self._of.decode(params)

    def encode(self, image: jax.Array) -> Params:
        """Return the parameters of `of` for `image`.

        Raises:
            InputError: as that of `of`.
        """
        return self._of.encode(image)

    def project(self, params: Params) -> Params:
        """Return the nearest parameters that obey the constraints of `of`."""
        return self._of.project(params)

    def pull(self, params: Params) -> Params:
        """Return what draws the image to its reconstruction, and the parameters of `of`."""
        assert self.generator is not None  # checked at construction
        generator, image = self.generator, self.decode(params)
        again = jnp.clip(generator.decode(generator.encode(image)), 0, 1)
        wanted = self._of.encode(again)
        pulls = {name: self.weight * (wanted[name] - params[name]) for name in params}
        return {**pulls, **{k: pulls[k] + v for k, v in self._of.pull(params).items()}}


class Inpainted(Region):
    """A hole in an image that a generator fills; the context stays what it is, to the bit.

    Two things draw the code of `of` (section 4.5 of the paper): it is to be the code that the
    encoder has for the whole, hole and context together, ε1·(E(x) − h); and the generator's own
    picture is to be like the context outside the hole, ε4 times the gradient of
    −‖(1 − m)·(G(h) − x)‖². The priors of `of` are beside these.

    Args:
        size: (height, width) of the image in pixels.
        channels: number of channels, that of `of` (the default).
        of: a `Latent` of the whole image, whose generator has an encoder.
        box: the hole, (top, left, bottom, right) in pixels, the last two not included.
        mask: in place of a box, an array (height, width), 1 in the hole and 0 elsewhere.
        value: of the rest where no image is given to start from.
        consistency: ε1, at least 0; data of the program.
        context: ε4, at least 0; data of the program.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    consistency: float = leaf(default=0.0)
    context: float = leaf(default=0.0)

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        if not isinstance(self.of, Latent):
            raise checks.error(self, "of", "a Latent of the whole image", self.of)
        if self.of.generator is None or self.of.generator.encoder is None:
            expected = "a Latent of a generator with an encoder"
            raise checks.error(self, "of", expected, self.of.generator)
        super().__post_init__()
        for name in ("consistency", "context"):
            value = getattr(self, name)
            if isinstance(value, (bool, int, float)):
                checks.set_fields(self, **{name: checks.number(self, name, value, 0)})
        if isinstance(self.mask, np.ndarray):
            levels = np.unique(self.mask)
            if not np.isin(levels, (0, 1)).all():
                other = levels[~np.isin(levels, (0, 1))]
                raise checks.error(self, "mask", "0 or 1 everywhere", float(other[0]))
            if (self.mask == 1).all():
                raise checks.error(self, "mask", "0 somewhere, for there is a context", "all 1")

    def pull(self, params: Params) -> Params:
        """Return what draws the code: the encoder's code of the whole, and the context."""
        own = self._without(params)
        whole = jax.lax.stop_gradient(self.decode(params))
        assert isinstance(self._of, Latent)  # checked at construction
        drawn = self._of.towards(own, self._of.code_of(whole))
        outside = 1 - self._weights()

        def likeness(own: Params) -> jax.Array:
            return -jnp.sum((outside * (self._of.decode(own) - params["rest"])) ** 2)

        near = jax.grad(likeness)(own)
        pulls = {name: self.consistency * drawn[name] + self.context * near[name] for name in own}
        return {**pulls, **{k: pulls[k] + v for k, v in self._of.pull(own).items()}}
