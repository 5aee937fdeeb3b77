"""TAESD and its kin: tiny autoencoders of photographs, residual blocks of three convolutions.

Architecture: Bohan, "Tiny AutoEncoder for Stable Diffusion" (github.com/madebyollin/taesd). A code
has 8 x 8 pixels a position; its numbers are within about ±3, where the decoder bends them:
3 tanh(code / 3). TAEF2's blocks at that resolution have a normalisation over all positions beside
them, so that each of its pixels depends on the whole code. Parameters are named by their places in
the authors' sequences of modules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from featvis.generators.entry import GeneratorEntry, Part, generator_entry
from featvis.weights.hub import Hub
from featvis.weights.layouts import KeyLayout, Rule, from_oihw
from featvis.weights.sources import Download, Local, Source
from featvis.zoo.architecture import Architecture
from featvis.zoo.layers import Convolution, GroupNorm

_WIDTH = 64

_GROUPS, _EXPANSION = 4, 4

_CLAMP = 3.0

#: Pixels a position of a code: three times half the size.
_STRIDE = 8

#: The authors' files.
_REPOSITORY = "https://github.com/madebyollin/taesd/raw/5cccb12dc72074a4be35680c3b108548a7c69978"


@dataclass(frozen=True)
class _Tiny(Architecture):
    """A half of an autoencoder.

    Attributes:
        channels: Of a code.
        normalised: Whether the blocks beside the code have a normalisation beside them.
    """

    channels: int
    normalised: bool = False


class TinyDecoder(_Tiny):
    """From codes (n, h, w, c) to images (n, 8 h, 8 w, 3) of about [0, 1]."""

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Decoder(self)


class TinyEncoder(_Tiny):
    """From images (n, 8 h, 8 w, 3) in [0, 1] to codes (n, h, w, c)."""

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Encoder(self)


class _Pool(nnx.Module):
    """What is added to a block's input: wider, normalised over all positions, and back."""

    def __init__(self) -> None:
        wide = _EXPANSION * _WIDTH
        self.layer0 = Convolution(_WIDTH, wide, bias=False)
        self.layer1 = GroupNorm(wide, _GROUPS, 1e-5)
        self.layer3 = Convolution(wide, _WIDTH, bias=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layer3(nnx.relu(self.layer1(self.layer0(x))))


class _Block(nnx.Module):
    """Three convolutions beside the identity."""

    def __init__(self, pooled: bool = False) -> None:
        self.conv0, self.conv2, self.conv4 = (
            Convolution(_WIDTH, _WIDTH, 3, padding=1) for _ in range(3)
        )
        self.pool = _Pool() if pooled else None

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.pool is not None:
            x = x + self.pool(x)
        y = nnx.relu(self.conv2(nnx.relu(self.conv0(x))))
        return nnx.relu(self.conv4(y) + x)


class _Decoder(nnx.Module):
    def __init__(self, shape: TinyDecoder) -> None:
        self.layer1 = Convolution(shape.channels, _WIDTH, 3, padding=1)
        place = 3
        for stage, blocks in enumerate((3, 3, 3, 1)):
            if stage:
                # After a magnification, which has a place of its own.
                convolution = Convolution(_WIDTH, _WIDTH, 3, padding=1, bias=False)
                setattr(self, f"layer{place + 1}", convolution)
                place += 2
            for _ in range(blocks):
                setattr(self, f"layer{place}", _Block(shape.normalised and stage == 0))
                place += 1
        self.layer19 = Convolution(_WIDTH, 3, 3, padding=1)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.layer1(_CLAMP * jnp.tanh(x / _CLAMP)))
        for place in range(3, 19):
            layer = getattr(self, f"layer{place}", _doubled)
            x = layer(x)
        return self.layer19(x)


class _Encoder(nnx.Module):
    def __init__(self, shape: TinyEncoder) -> None:
        self.layer0 = Convolution(3, _WIDTH, 3, padding=1)
        self.layer1 = _Block()
        place = 2
        for stage in range(3):
            convolution = Convolution(_WIDTH, _WIDTH, 3, 2, 1, bias=False)
            setattr(self, f"layer{place}", convolution)
            for i in range(1, 4):
                setattr(self, f"layer{place + i}", _Block(shape.normalised and stage == 2))
            place += 4
        self.layer14 = Convolution(_WIDTH, shape.channels, 3, padding=1)

    def __call__(self, x: jax.Array) -> jax.Array:
        for place in range(15):
            x = getattr(self, f"layer{place}")(x)
        return x


def _doubled(x: jax.Array) -> jax.Array:
    """Each position of (n, h, w, c) as 2 x 2 of them."""
    n, h, w, c = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c))
    return wide.reshape(n, 2 * h, 2 * w, c)


def _layout(name: str, moved: int = 0) -> KeyLayout:
    """Rules for a sequence of modules, whose places are `moved`."""
    rules: list[Rule] = []
    for place in range(20):
        path, source = f"layer{place}", f"{place - moved}"
        rules += [
            Rule(rf"{path}/conv(\d)/kernel", rf"{source}.conv.\1.weight", from_oihw),
            Rule(rf"{path}/conv(\d)/bias", rf"{source}.conv.\1.bias"),
            Rule(rf"{path}/pool/layer1/scale", rf"{source}.pool.1.weight"),
            Rule(rf"{path}/pool/layer1/bias", rf"{source}.pool.1.bias"),
            Rule(rf"{path}/pool/layer(\d)/kernel", rf"{source}.pool.\1.weight", from_oihw),
            Rule(rf"{path}/kernel", f"{source}.weight", from_oihw),
            Rule(rf"{path}/bias", f"{source}.bias"),
        ]
    return KeyLayout(name, tuple(rules))


#: Diffusers' sequence of the decoder lacks the bend at its start; its encoder's is the authors'.
_LAYOUTS = {
    "decoder": (_layout("the authors"), _layout("diffusers", 1)),
    "encoder": (_layout("the authors"),),
}


def _autoencoder(
    channels: int, digests: tuple[str, str] | None = None, *, normalised: bool = False
) -> Callable[[Callable[[], None]], GeneratorEntry]:
    """Decoder and encoder under a name; with the SHA-256 of the authors' files where known."""

    def decorate(named: Callable[[], None]) -> GeneratorEntry:
        parts = []
        for i, (part, make) in enumerate({"decoder": TinyDecoder, "encoder": TinyEncoder}.items()):
            file, sources = f"{named.__name__}_{part}.pth", list[Source]()
            if digests is None:
                whole = "diffusion_pytorch_model.safetensors"
                sources.append(Local(file, "the authors' file", licence="MIT"))
                sources.append(Hub(f"madebyollin/{named.__name__}", whole, licence="MIT"))
            else:
                sources.append(Download(f"{_REPOSITORY}/{file}", digests[i], licence="MIT"))
            parts.append(Part(make(channels, normalised), tuple(sources), _LAYOUTS[part]))
        decoder, encoder = parts
        entry = generator_entry(decoder=decoder, encoder=encoder, code=(channels,), stride=_STRIDE)
        return entry(named)

    return decorate


@_autoencoder(4)
def taesd() -> None:
    """Tiny autoencoder for the codes of Stable Diffusion 1 and 2."""


@_autoencoder(4)
def taesdxl() -> None:
    """Tiny autoencoder for the codes of Stable Diffusion XL."""


@_autoencoder(16)
def taef1() -> None:
    """Tiny autoencoder for the codes of FLUX.1."""


_TAEF2 = (
    "0a44a31e1ae59eb9dbf9359d24942fd3ef5928162c1800d97a28c61d51be0ab5",
    "10a4e1021e89d7551eaf161352da8dbd0b1aa83872ae28b150c1df1ce2f147b6",
)


@_autoencoder(32, _TAEF2, normalised=True)
def taef2() -> None:
    """Tiny autoencoder for the codes of FLUX.2."""
