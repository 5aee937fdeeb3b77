"""An image as the code that a generator makes it of."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from featvis import checks
from featvis.errors import InputError
from featvis.parameterizations.code_priors import CodePrior
from featvis.parameterizations.component import check_finite, numbers_of
from featvis.parameterizations.generator import Generator
from featvis.parameterizations.parameterization import Parameterization, Params, draw_normal
from objectives import leaf

_CODE, _WAVES, _WHITE = "code", "waves", "white"
_METHODS = ("linear", "cubic", "lanczos3", "nearest")
#: Numbers below it have a square that float32 has.
_LARGE = 1e18


class Latent(Parameterization):
    """The code of a generator: `clip(generator(code))`, whose weights are data of the program.

    What the generator cannot make does not come about: a generator of photographs keeps pictures
    near to photographs (Nguyen et al., "Synthesizing the preferred inputs for neurons in neural
    networks via deep generator networks", NeurIPS 2016). The parameters are `code`, float32; or
    `waves`, (h, w // 2 + 1, 2 c), the real and imaginary parts of the code's Fourier coefficients;
    or `white`, of a code's shape, the normal draw that the code is made of.

    Where the image goes beyond [0, 1] it is clipped, and the gradient is not.

    Args:
        size: (height, width) of the image in pixels; None: that of the generator, which has one.
        channels: number of channels, that of the generator (the default).
        generator: what makes the image.
        code: shape of the code; None: the one that the generator has for an image of this size.
        resize: how the generator's image is brought to `size` where its own is another: "linear",
            "cubic", "lanczos3" or "nearest", without aliasing. None: the sizes are the same.
        waves: where a code, which must be a map, is written in Fourier coefficients, the power of
            the frequency, in cycles a code, that they are divided by: what is coarse moves first,
            as in `Fourier`, and a picture is no mosaic of the codes' positions. None: it is not.
        mean: around which the first code is drawn, a number or an array that broadcasts with it.
        sd: standard deviation of the first code, likewise; a coefficient of 1 is as large.
        factor: in place of `sd`, a matrix that the normal draw of a flat code is multiplied by, for
            numbers that go together: a square root of their covariance. Not with `waves`.
        white: whether that draw is what is optimised, in place of the code: each step goes along
            what numbers of a code do together, and those that never vary stay as they are.
            `radius`, `sphere` and `decay` are of the draw then. Not with `waves`.
        low: least value of each number of a code, likewise; None: any.
        high: largest value, likewise; DGN-AM has [0, mean + 3 sd] of each unit.
        radius: of a code, the root of the mean square of its numbers; None: any.
        sphere: whether that is exactly `radius`; otherwise at most.
        decay: what each step takes away of the code (of its waves), from 0 to 1: it is multiplied
            by 1 - decay after each step, and once at the start. DGN-AM has 0.01.
        prior: what draws the code beside the objective, a `CodePrior` or a tuple of them.

    Raises:
        InputError: at construction, for a field that is out of its range or does not fit the
            generator.
    """

    size: tuple[int, int] = None  # type: ignore[assignment]  # from the construction on
    channels: int = None  # type: ignore[assignment]
    generator: Generator | None = None
    code: tuple[int, ...] | None = None
    resize: str | None = None
    waves: float | None = None
    mean: ArrayLike = leaf(default=0.0)
    sd: ArrayLike = leaf(default=1.0)
    factor: ArrayLike | None = leaf(default=None)
    white: bool = False
    low: ArrayLike | None = leaf(default=None)
    high: ArrayLike | None = leaf(default=None)
    radius: float | None = leaf(default=None)
    sphere: bool = False
    decay: float = leaf(default=0.0)
    prior: CodePrior | tuple[CodePrior, ...] | None = None

    def __post_init__(self) -> None:
        """Check the fields, turn them into plain literals, and fit them to the generator."""
        generator = self.generator
        if isinstance(self.size, Generator):
            raise InputError("Latent: size comes first; write the generator as generator=")
        if not isinstance(generator, Generator):
            expected = "a Generator, as featvis.generators.load('taef2') or the text latent:taef2"
            raise checks.error(self, "generator", expected, generator)
        if self.size is None:
            if generator.stride is not None:
                expected = "(height, width): the generator makes images of any size"
                raise checks.error(self, "size", expected, None)
            checks.set_fields(self, size=generator.image_for(generator.code)[:2])
        size = checks.image_size(self, "size", self.size)
        code = generator.code_for(size)
        if self.code is not None:
            if not isinstance(self.code, (tuple, list)):
                raise checks.error(self, "code", f"a shape, as {code}", self.code)
            code = tuple(checks.integer(self, "code", side, 1) for side in self.code)
        made = generator.image_for(code)
        if self.channels is None:
            checks.set_fields(self, channels=made[2])
        super().__post_init__()
        if self.channels != made[2]:
            expected = f"{made[2]}, as of {generator!r}"
            raise checks.error(self, "channels", expected, self.channels)
        if self.resize is not None:
            checks.choice(self, "resize", self.resize, _METHODS)
        elif made[:2] != size:
            raise InputError(
                f"Latent: {generator!r} makes images of {made[0]}x{made[1]} pixels, and "
                f"{size[0]}x{size[1]} are asked for: ask for its own size, or say how they are "
                "resized, as resize='linear'"
            )
        checks.set_fields(self, code=code)
        if self.waves is not None:
            if len(code) != 3:
                expected = f"None: a code {code} of {generator!r} is no map"
                raise checks.error(self, "waves", expected, self.waves)
            checks.set_fields(self, waves=checks.number(self, "waves", self.waves, 0, 4))
        for name in ("sphere", "white"):
            if not isinstance(getattr(self, name), bool):
                raise checks.error(self, name, "True or False", getattr(self, name))
        if self.white and self.waves is not None:
            raise checks.error(self, "white", "given without waves", f"waves={self.waves}")
        priors = self._priors
        if self.prior is not None and not (
            priors and all(isinstance(one, CodePrior) for one in priors)
        ):
            expected = "a CodePrior, as NormalPrior(0.1), or a tuple of at least one"
            raise checks.error(self, "prior", expected, self.prior)
        for one in priors:
            one.check(generator, code)
        self._check_data()

    @classmethod
    def usual(cls, generator: Generator, size: tuple[int, int] | None = None) -> Latent:
        """Return what `latent:NAME` is: a code that is a map in waves, others as they are.

        Args:
            generator: what makes the image.
            size: (height, width) of the image in pixels; None: that of the generator.
        """
        if len(generator.code_for((1, 1))) != 3:
            return cls(size, generator=generator)  # type: ignore[arg-type]
        return cls(size, generator=generator, waves=1.0, sd=0.3)  # type: ignore[arg-type]

    def _check_data(self) -> None:
        """Checks what is data, where its values are there."""
        count = math.prod(self._shape)
        if self.factor is not None and self.waves is not None:
            raise checks.error(self, "factor", "given without waves", f"waves={self.waves}")
        if self.factor is not None and np.shape(self.factor) != (count, count):
            expected = f"a matrix {(count, count)}, of codes {self._shape}"
            raise checks.error(self, "factor", expected, f"one {np.shape(self.factor)}")
        for name in ("mean", "sd", "low", "high"):
            value = getattr(self, name)
            if value is None:
                continue
            try:
                fits = np.broadcast_shapes(np.shape(value), self._shape) == self._shape
            except ValueError:
                fits = False
            if not fits:
                expected = f"a number, or an array that broadcasts with codes {self._shape}"
                raise checks.error(self, name, expected, f"one {np.shape(value)}")
        check_finite(self, "mean", "sd", "factor", "low", "high")
        sd, low, high, radius = (
            numbers_of(getattr(self, name)) for name in ("sd", "low", "high", "radius")
        )
        if sd is not None and np.any(sd < 0):
            raise checks.error(self, "sd", "at least 0", float(sd.min()))
        if sd is not None and self.waves is not None and not np.all(sd):
            raise checks.error(self, "sd", "above 0 where codes are written in waves", 0.0)
        if low is not None and high is not None and np.any(low > high):
            lows, highs = np.broadcast_arrays(low, high)
            at = int(np.argmax((lows > highs).ravel()))
            expected = f"at most high, {highs.ravel()[at]:.3g},"
            raise checks.error(self, "low", f"{expected} everywhere", float(lows.ravel()[at]))
        if self.radius is None:
            if self.sphere:
                raise checks.error(self, "radius", "a number above 0, of the sphere", None)
        elif radius is not None:
            checks.positive(self, "radius", radius.item() if radius.ndim == 0 else self.radius)
            # Of a white code the box is the code's, and the radius the draw's.
            boxed = not self.white and (self.low is not None or self.high is not None)
            if boxed and self.sphere:
                raise checks.error(self, "sphere", "given without low and high", True)
            inside = (low is None or np.all(low <= 0)) and (high is None or np.all(high >= 0))
            if boxed and not inside:
                # Scaling a code down must keep it in the box.
                raise checks.error(self, "radius", "given with low <= 0 <= high", self.radius)
        if isinstance(self.decay, (bool, int, float)):
            checks.set_fields(self, decay=checks.number(self, "decay", self.decay, 0, 1))

    @property
    def _of(self) -> Generator:
        assert self.generator is not None  # checked at construction
        return self.generator

    @property
    def _priors(self) -> tuple[CodePrior, ...]:
        if self.prior is None:
            return ()
        return self.prior if isinstance(self.prior, tuple) else (self.prior,)

    @property
    def _shape(self) -> tuple[int, ...]:
        assert self.code is not None  # from the construction on
        return self.code

    def init(self, key: jax.Array) -> Params:
        """Draw a normal code around `mean`, within the bounds."""
        if self.waves is not None:
            height, width, channels = self._shape
            shape = (height, width // 2 + 1, 2 * channels)
            return self._kept({_WAVES: draw_normal(key, [shape])[0]})
        drawn = draw_normal(key, [self._shape])[0]
        if self.white:
            return self._kept({_WHITE: drawn})
        return {_CODE: self._bounded(self._made_of(drawn))}

    def decode(self, params: Params) -> jax.Array:
        """Turn a code into the generator's image, (h, w, c) float32 clipped to [0, 1]."""
        image = self._of.decode(self._code(params))
        if image.shape != self.shape:
            assert self.resize is not None  # checked at construction
            image = jax.image.resize(image, self.shape, self.resize)
        # Straight through: the value is clipped and the gradient is not.
        return image + jax.lax.stop_gradient(jnp.clip(image, 0, 1) - image)

    def encode(self, image: jax.Array) -> Params:
        """Return the code of `image`, (h, w, c), by the generator's encoder, within the bounds.

        Raises:
            InputError: if the image has another shape, or the generator has no encoder.
        """
        code = self.code_of(image)
        return self._kept(self._params(code)) if self.white else self._params(code)

    def code_of(self, image: jax.Array) -> jax.Array:
        """The code of `image`, (h, w, c), by the generator's encoder, within the bounds of codes.

        Raises:
            InputError: as `encode`.
        """
        image, own = self._check_image(image), self._of.image_for(self._shape)
        if image.shape != own:
            image = jnp.clip(jax.image.resize(image, own, self.resize or "linear"), 0, 1)
        code = self._of.encode(image)
        return self._boxed(code) if self.white else self._bounded(code)

    def project(self, params: Params) -> Params:
        """Return the code within its bounds, less what decays."""
        kept = self._kept({name: params[name] for name in self._names})
        return {name: value * (1 - jnp.asarray(self.decay)) for name, value in kept.items()}

    def pull(self, params: Params) -> Params:
        """Return what the priors draw the code to."""
        priors = self._priors
        if not priors:
            return {}
        # Around another one there are parameters of its own.
        code, back = jax.vjp(self._code, {name: params[name] for name in self._names})
        pulls = [one.pull(self._of, code) for one in priors]
        (drawn,) = back(functools.reduce(jnp.add, pulls))
        found: Params = drawn
        return found

    def towards(self, params: Params, code: jax.Array) -> Params:
        """What draws parameters to a code: the difference of codes, as a gradient of parameters.

        Args:
            params: of the code that is drawn.
            code: to which, (n,) or (h, w, c).
        """
        own, back = jax.vjp(self._code, {name: params[name] for name in self._names})
        (drawn,) = back(code - own)
        found: Params = drawn
        return found

    @property
    def _names(self) -> tuple[str]:
        return (_WHITE if self.white else _CODE if self.waves is None else _WAVES,)

    def _made_of(self, drawn: jax.Array) -> jax.Array:
        """The code of a normal draw, without bounds."""
        if self.factor is None:
            spread = self._over(self.sd) * drawn
        else:
            spread = (jnp.asarray(self.factor) @ drawn.ravel()).reshape(self._shape)
        return spread + self._over(self.mean)

    def _code(self, params: Params) -> jax.Array:
        """The code that is written in parameters."""
        if self.white:
            return self._boxed(self._made_of(params[_WHITE]))
        if self.waves is None:
            return params[_CODE]
        real, imaginary = jnp.split(params[_WAVES] * self._scale(), 2, -1)
        spectrum = jax.lax.complex(real, imaginary)
        code = jnp.fft.irfft2(spectrum, self._shape[:2], axes=(0, 1))
        return self._over(self.sd) * code + self._over(self.mean)

    def _params(self, code: jax.Array) -> Params:
        """The parameters of a code."""
        if self.white:
            offset = code - self._over(self.mean)
            if self.factor is None:
                sd = self._over(self.sd)
                return {_WHITE: jnp.where(sd > 0, offset / jnp.where(sd > 0, sd, 1), 0)}
            drawn = jnp.linalg.lstsq(jnp.asarray(self.factor), offset.ravel())[0]
            return {_WHITE: drawn.reshape(self._shape)}
        if self.waves is None:
            return {_CODE: code}
        offset = (code - self._over(self.mean)) / self._over(self.sd)
        spectrum = jnp.fft.rfft2(offset, axes=(0, 1))
        parts = jnp.concatenate([jnp.real(spectrum), jnp.imag(spectrum)], -1)
        return {_WAVES: parts / self._scale()}

    def _scale(self) -> jax.Array:
        """What coefficients (h, w // 2 + 1, 2 c) are multiplied by: white ones give codes of sd."""
        assert self.waves is not None
        height, width = self._shape[:2]
        y, x = np.fft.fftfreq(height, 1 / height), np.fft.rfftfreq(width, 1 / width)
        scale = np.maximum(1.0, np.hypot(y[:, None], x[None])) ** -self.waves
        # A column stands for its mirror image too, but for that of 0 and the last of an even width.
        shared = np.where((x == 0) | (x == width / 2), 1.0, 4.0)
        scale *= height * width / np.sqrt(np.sum(shared * scale**2))
        return jnp.asarray(scale[..., None], jnp.float32)

    def _kept(self, params: Params) -> Params:
        """The parameters of the bounded code; as they are where there is no bound."""
        if self.low is self.high is self.radius is None:
            return params
        if self.white:
            return {_WHITE: self._scaled(params[_WHITE])}
        return self._params(self._bounded(self._code(params)))

    def _over(self, value: ArrayLike) -> jax.Array:
        """Data as an array of a code's shape: ranks may be kept strictly."""
        return jnp.broadcast_to(jnp.asarray(value, jnp.float32), self._shape)

    def _bounded(self, code: jax.Array) -> jax.Array:
        """The code in the box, then scaled into the ball or onto the sphere."""
        return self._scaled(self._boxed(code))

    def _boxed(self, code: jax.Array) -> jax.Array:
        """The code in the box."""
        if self.low is not None:
            code = jnp.maximum(code, self._over(self.low))
        if self.high is not None:
            code = jnp.minimum(code, self._over(self.high))
        return code

    def _scaled(self, code: jax.Array) -> jax.Array:
        """The code in the ball or on the sphere."""
        if self.radius is None:
            return code
        # Of large numbers the squares are infinite: they are counted in a large power of two.
        unit = jnp.where(jnp.max(jnp.abs(code)) > _LARGE, 2.0**100, 1)
        code = code / unit
        # The smallest normal number keeps 0 / 0 out; it is far below any radius squared.
        tiny = float(jnp.finfo(jnp.float32).tiny)
        scale = self.radius * jax.lax.rsqrt(jnp.maximum(jnp.mean(code**2), tiny))
        return code * (scale if self.sphere else jnp.minimum(unit, scale))
