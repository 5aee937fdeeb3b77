"""A figure with an opacity of its own, before backgrounds that change with every step."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from featvis import checks
from featvis.parameterizations.fourier import Fourier
from featvis.parameterizations.parameterization import CLIP, Parameterization, Params

#: Before which a figure stands where there is no other background.
_GREY = 0.5
#: Of the backgrounds, as a power of the frequency: clouds, as in lucid.
_DECAY = 1.5


class Figure(Parameterization):
    """Colours and an opacity; at each step the network sees them before another background.

    The image is `opacity * colours + (1 - opacity) * background`, mid-grey in the result. What
    the objective does not need is better left to the background, as more opacity costs: `weight`
    times the mean opacity is taken off the score that is ascended (the scores that are reported
    are without it). So opacity separates what the unit looks for from the ground it stands on.

    `result.picture(transparent=True)` is the figure alone, with its opacity as transparency.

    Source: the semi-transparent patterns of Mordvintsev et al., "Differentiable Image
    Parameterizations", Distill 2018, and their notebook: backgrounds of smooth noise; there the
    score is multiplied by 1 less the mean opacity, here the two are added.

    Args:
        size: (height, width) of the image in pixels.
        channels: number of channels.
        of: parameterization of the colours, of this size and number of channels; `Fourier` by
            default.
        mask: that of the opacity, of this size and one channel; `Fourier` by default.
        weight: what a mean opacity of 1 costs, in units of the score, at least 0. Of eight classes
            of EfficientNet-Lite0, 160 x 160, 200 steps, the weights 0.5, 1, 2, 5 and 20 leave mean
            opacities of 0.70, 0.65, 0.42, 0.24 and 0.11 (each ± 0.05 at most) and clean scores
            of 17.6, 17.8, 8.3, 4.7 and 3.8 (± 2 to 3.5). MobileNetV2 puts three of the eight first
            at 0.5 and at 1, two at 2, none at 5 and one at 20, where most are next to invisible.
            Units of other scores need other weights.
        sd: standard deviation of the backgrounds' Fourier coefficients, at least 0, which is
            mid-grey. Backgrounds are those of `Fourier(decay=1.5)`.

    Raises:
        InputError: at construction, for a field that is out of its range.
    """

    of: Parameterization | None = None
    mask: Parameterization | None = None
    weight: float = 1.0
    sd: float = 0.5

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        super().__post_init__()
        checks.set_fields(
            self,
            weight=checks.number(self, "weight", self.weight, 0),
            sd=checks.number(self, "sd", self.sd, 0),
        )
        for name, channels in (("of", self.channels), ("mask", 1)):
            value = getattr(self, name)
            if value is None:
                checks.set_fields(self, **{name: Fourier(self.size, channels)})
            elif not isinstance(value, Parameterization) or value.shape != (*self.size, channels):
                expected = f"a parameterization of size {self.size} and channels={channels}"
                raise checks.error(self, name, expected, value)

    @property
    def held(self) -> frozenset[str]:
        """What the colours and the mask hold."""
        return self._names("held")

    @property
    def shared(self) -> frozenset[str]:
        """What the colours and the mask share."""
        return self._names("shared")

    def init(self, key: jax.Array) -> Params:
        """Draw colours, and an opacity around a half."""
        keys = jax.random.split(key)
        parts = self._parts.items()
        return _joined({n: p.init(own) for (n, p), own in zip(parts, keys, strict=True)})

    def decode(self, params: Params) -> jax.Array:
        """Put the figure before mid-grey, (h, w, c) float32 in [0, 1]."""
        return self._before(jnp.float32(_GREY), params)

    def shown(self, key: jax.Array, params: Params) -> jax.Array:
        """Put the figure before a background that is drawn from `key`."""
        background = Fourier(self.size, self.channels, decay=_DECAY, sd=self.sd)
        return self._before(background.decode(background.init(key)), params)

    def with_opacity(self, params: Params) -> jax.Array:
        """Return colours and opacity, (h, w, c + 1) in [0, 1]."""
        return jnp.concatenate(self._layers(params), axis=-1)

    def encode(self, image: jax.Array) -> Params:
        """Return parameters of `image`, (h, w, c) in [0, 1], as a figure that hides its ground.

        Its opacity is 1023/1024, at which it has a gradient.

        Raises:
            InputError: if the image has another shape, or a part has no `encode`.
        """
        opacity = 1 - CLIP
        colours = (self._check_image(image) - CLIP * _GREY) / opacity
        mask = jnp.full((*self.size, 1), opacity, jnp.float32)
        parts = self._parts
        return _joined(
            {
                "colours": parts["colours"].encode(jnp.clip(colours, 0, 1)),
                "mask": parts["mask"].encode(mask),
            }
        )

    def project(self, params: Params) -> Params:
        """Return the nearest parameters that obey the constraints of the colours and the mask."""
        return _joined(
            {name: part.project(_of(name, params)) for name, part in self._parts.items()}
        )

    def pull(self, params: Params) -> Params:
        """Return what keeps the figure small, and what draws the parameters of its parts."""
        mask = self._parts["mask"]
        drawn = _joined({name: part.pull(_of(name, params)) for name, part in self._parts.items()})
        cost = jax.grad(lambda own: -self.weight * jnp.mean(mask.decode(own)))(_of("mask", params))
        for name, value in _joined({"mask": cost}).items():
            drawn[name] = drawn[name] + value if name in drawn else value
        return drawn

    @property
    def _parts(self) -> dict[str, Parameterization]:
        assert self.of is not None  # both are filled in at construction
        assert self.mask is not None
        return {"colours": self.of, "mask": self.mask}

    def _layers(self, params: Params) -> list[jax.Array]:
        """Colours (h, w, c) and opacity (h, w, 1)."""
        return [part.decode(_of(name, params)) for name, part in self._parts.items()]

    def _before(self, background: jax.Array, params: Params) -> jax.Array:
        colours, opacity = self._layers(params)
        return opacity * colours + (1 - opacity) * background

    def _names(self, kind: str) -> frozenset[str]:
        parts = self._parts.items()
        return frozenset(f"{part}_{name}" for part, one in parts for name in getattr(one, kind))


def _joined(parts: Mapping[str, Params]) -> Params:
    """The parameters of all parts in one dict, with their part's name before their own."""
    return {f"{part}_{name}": one for part, own in parts.items() for name, one in own.items()}


def _of(part: str, params: Params) -> Params:
    """The parameters of one part."""
    return {
        name.removeprefix(f"{part}_"): one
        for name, one in params.items()
        if name.startswith(f"{part}_")
    }
