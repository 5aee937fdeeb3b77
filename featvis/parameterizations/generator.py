"""A generator: a pure function from a code to an image, with its weights."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from featvis import checks
from featvis.digests import digest_of_tree
from featvis.dry_runs import once_a_kind, tried
from featvis.errors import InputError
from featvis.parameterizations.codes import Codes
from featvis.parameterizations.component import Component
from objectives import leaf

#: Positions along each side of a code map of the dry run.
_POSITIONS = 8


class Generator(Component):
    """A pure function from one code to one image, and where there is one, its encoder.

    The weights are data of a compiled program: another generator of the same architecture compiles
    nothing. Codes are (n,) or (h, w, c); images are (height, width, channels), float32, with black
    and white at the ends of `range`.

    Args:
        decoder: `(params, code) -> image`, of one code; hashable, and equal for equal
            architectures, as a function or a frozen dataclass is.
        code: shape of a code; with a `stride`, of one at one position, (c,).
        params: the decoder's weights, a pytree of arrays.
        encoder: `(encoder_params, image) -> code`, of one image in `range`; None: there is none.
        encoder_params: the encoder's weights.
        stride: pixels along each side for a position of the code, where it is a map of any size;
            None where it is of one size.
        range: (black, white) of the images.
        place: where it is found again, a name that `featvis.generators.load` knows or
            `package.module:factory`; None: it is nobody's but the caller's.
        codes: what is known of its codes of natural images; None: nothing.

    Raises:
        InputError: at construction, for what is out of its range, and where the decoder or the
            encoder cannot be called or do not fit each other; says which shapes.
    """

    decoder: Callable[[Any, jax.Array], jax.Array]
    code: tuple[int, ...]
    params: Any = leaf()
    encoder: Callable[[Any, jax.Array], jax.Array] | None = None
    encoder_params: Any = leaf(default=None)
    stride: int | None = None
    range: tuple[float, float] = (0.0, 1.0)
    place: str | None = None
    codes: Codes | None = None

    def __post_init__(self) -> None:
        """Check the fields, turn them into plain literals, and try both functions on shapes."""
        super().__post_init__()
        for name in ("decoder", "encoder"):
            function = getattr(self, name)
            if not callable(function) and not (name == "encoder" and function is None):
                expected = "a function (params, code), one code to one image"
                raise checks.error(self, name, expected, function)
        if self.encoder is None and self.encoder_params is not None:
            raise checks.error(self, "encoder_params", "None without an encoder", "weights")
        code = self.code if isinstance(self.code, (tuple, list)) else (self.code,)
        code = tuple(checks.integer(self, "code", side, 1) for side in code)
        if len(code) not in ((1,) if self.stride is not None else (1, 3)):
            expected = "(c,), of one position" if self.stride else "(n,) or (h, w, c)"
            raise checks.error(self, "code", expected, self.code)
        low, high = checks.interval(self, "range", self.range)
        if low == high:
            raise checks.error(self, "range", "(black, white), two numbers", self.range)
        stride = self.stride
        if stride is not None:
            stride = checks.integer(self, "stride", stride, 1)
        checks.set_fields(self, code=code, range=(low, high), stride=stride)
        if self.place is not None and not isinstance(self.place, str):
            raise checks.error(self, "place", "a name, or None", self.place)
        if self.codes is not None:
            if not isinstance(self.codes, Codes):
                raise checks.error(self, "codes", "Codes, as Codes(mean=..., sd=...)", self.codes)
            for name in ("mean", "sd"):
                shape = np.shape(getattr(self.codes, name))
                if shape not in ((), self.code):
                    expected = f"of codes {self.code}"
                    raise checks.error(self, "codes", expected, f"a {name} of shape {shape}")
        self._try()

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of its weights, and of what its codes and images are."""
        seal = hashlib.sha256(f"{self.code} {self.stride} {self.range} ".encode())
        seal.update(digest_of_tree((self.params, self.encoder_params)).encode())
        return seal.hexdigest()

    @functools.cached_property
    def _text(self) -> str:
        if self.place is None:
            return f"sha256({self.digest!r})"
        return f"generator({self.place!r}, sha256={self.digest!r})"

    def __repr__(self) -> str:
        """Its place, or that it has none, and the shape of its codes."""
        what = f" at each {self.stride}x{self.stride} pixels" if self.stride else ""
        return f"Generator({self.place or 'of one'}, code {self.code}{what})"

    def code_for(self, size: tuple[int, int]) -> tuple[int, ...]:
        """The shape of the code of an image of at least a size.

        Args:
            size: (height, width) in pixels.
        """
        if self.stride is None:
            return self.code
        return -(-size[0] // self.stride), -(-size[1] // self.stride), *self.code

    def image_for(self, code: tuple[int, ...]) -> tuple[int, int, int]:
        """The shape (height, width, channels) of the image of a code.

        Args:
            code: the shape of the code.

        Raises:
            InputError: it has no code of that shape.
        """
        self._check_code(code)
        return _shape_of_image(self, code)

    def decode(self, code: jax.Array) -> jax.Array:
        """The image (h, w, c) of one code, float32; black is 0 and white 1, and it may go beyond.

        Args:
            code: (n,) or (h, w, c).

        Raises:
            InputError: it has no code of that shape.
        """
        self._check_code(np.shape(code))
        image = self.decoder(self.params, code)
        low, high = self.range
        # Of the usual range nothing is computed, so that not one bit changes.
        return image if self.range == (0.0, 1.0) else (image - low) / (high - low)

    def encode(self, image: jax.Array) -> jax.Array:
        """The code of one image.

        Args:
            image: (h, w, c) in [0, 1].

        Raises:
            InputError: it has no encoder, or the image has another shape than its own.
        """
        if self.encoder is None:
            raise InputError(
                f"{self!r} has no encoder, so that nothing can begin from an image, nor be drawn "
                "to its image's code: begin from the seed, or from parameters "
                "(init=result.params), and without Consistency"
            )
        shape = np.shape(image)
        if len(shape) != 3 or shape != self.image_for(self.code_for(shape[:2])):
            own = self.image_for(self.code_for(shape[:2] if len(shape) == 3 else (1, 1)))
            raise InputError(f"{self!r} encodes images {own}; got {shape}")
        low, high = self.range
        seen = image if self.range == (0.0, 1.0) else low + image * (high - low)
        return self.encoder(self.encoder_params, seen)

    def _check_code(self, code: tuple[int, ...]) -> None:
        """Refuses the shape of a code that it does not take."""
        fits = code == self.code if self.stride is None else code[2:] == self.code
        if not fits or len(code) != (3 if self.stride else len(self.code)):
            wanted = f"(h, w, {self.code[0]})" if self.stride else str(self.code)
            raise InputError(f"{self!r} takes codes {wanted}; got {code}")

    def _try(self) -> None:
        """Both functions on shapes."""
        shape = self.code if self.stride is None else (_POSITIONS, _POSITIONS, *self.code)
        image = self.image_for(shape)
        if self.stride is not None and image[:2] != (_POSITIONS * self.stride,) * 2:
            raise InputError(
                f"{self!r}: the decoder makes {image[0]}x{image[1]} pixels of {_POSITIONS}x"
                f"{_POSITIONS} positions; expected {self.stride} times as many"
            )
        if self.encoder is not None:
            _check_encoder(self, image, shape)


@once_a_kind
def _shape_of_image(generator: Generator, code: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of the image of a code, of generators of one architecture."""
    z = jax.ShapeDtypeStruct(code, jnp.float32)
    found = _called(generator, "decoder", lambda one, z: one.decoder(one.params, z), z)
    shape: tuple[int, ...] = getattr(found, "shape", ())
    if len(shape) != 3 or found.dtype != jnp.float32:
        hint = ""
        if len(shape) == 4 and shape[0] == 1:
            hint = "; it is to take one code and to give one image, without a batch"
        raise InputError(
            f"{generator!r}: the decoder must make an image (height, width, channels) of float32 "
            f"of a code {code}; it makes {_said(found)}{hint}"
        )
    return int(shape[0]), int(shape[1]), int(shape[2])


@once_a_kind
def _check_encoder(
    generator: Generator, image: tuple[int, int, int], code: tuple[int, ...]
) -> None:
    """Checks that an encoder makes codes that its decoder takes."""
    x = jax.ShapeDtypeStruct(image, jnp.float32)
    found = _called(generator, "encoder", lambda one, x: one.encoder(one.encoder_params, x), x)
    if getattr(found, "shape", None) != code or found.dtype != jnp.float32:
        raise InputError(
            f"{generator!r}: the encoder does not fit the decoder, which makes an image {image} of "
            f"a code {code}; of that image it makes {_said(found)}"
        )


def _called(generator: Generator, what: str, function: Any, given: Any) -> Any:
    """What a function of a generator gives for a shape."""
    failing = f"{generator!r}: its {what} cannot be called on one array {given.shape}"
    return tried(failing, function, generator, given)


def _said(found: Any) -> str:
    if hasattr(found, "shape"):
        return f"{found.dtype} {found.shape}"
    return type(found).__name__
