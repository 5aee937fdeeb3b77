"""Vision transformers: ViT, DINOv2 and the image tower of CLIP.

Architecture: Dosovitskiy et al., "An Image Is Worth 16x16 Words" (2021), section 3.1 and Table 1;
the small one is Touvron et al., "Training data-efficient image transformers" (2021), Table 1.
DINOv2 (Oquab et al. 2023) scales what each branch adds to the residual stream (Touvron et al.,
"Going deeper with Image Transformers", 2021, section 2.1); CLIP (Radford et al. 2021, section 2.4)
normalises the embedded tokens and projects the class token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from featvis.models import Input
from featvis.models.input import IMAGENET_MEAN, IMAGENET_STD
from featvis.weights.hub import Hub
from featvis.weights.layouts import KeyLayout, Rule, from_oihw
from featvis.weights.sources import torchvision
from featvis.zoo import labels
from featvis.zoo.architecture import Architecture
from featvis.zoo.entry import model_entry
from featvis.zoo.layers import Convolution, LayerNorm, Linear, along_last

#: Of the images that CLIP was trained on (Radford et al. 2021; clip/clip.py of its code).
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)

_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

#: Free parameter of the cubic convolution kernel (Keys 1981), as PyTorch sets it.
_KEYS = -0.75

_BLOCK = r"block(\d+)/"


@dataclass(frozen=True)
class VisionTransformer(Architecture):
    """An architecture of the family.

    Tokens are (n, t, c), the class token first and the patches after it, row by row.

    Attributes:
        patch: Side of a patch in pixels.
        width: Of a token.
        depth: Number of blocks.
        heads: Of the attention in each block; `width` is a multiple of it.
        hidden: Neurons of the MLP in each block.
        grid: Patches along a side of the square images that the positions were trained for; they
            are interpolated for others.
        head: What is made of the class token: class scores, a projection without a bias, or
            nothing, so that the normalised token is the features.
        outputs: Width of the scores or the projection; None for features.
        activation: Of the MLP: Gaussian error linear unit, exact or as x sigmoid(1.702 x)
            (Hendrycks & Gimpel 2016, section 2).
        pre_norm: Whether tokens are normalised before the first block, in the place of a bias of
            the patches.
        layer_scale: Whether each branch's output is scaled before it is added.
        epsilon: Of the layer normalisations.
    """

    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    grid: int
    head: Literal["logits", "projection", "features"] = "logits"
    outputs: int | None = 1000
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    pre_norm: bool = False
    layer_scale: bool = False
    epsilon: float = 1e-6

    def build(self) -> nnx.Module:
        """The network as a module."""
        return _Network(self)


class _Attention(nnx.Module):
    """Softmax attention between all tokens (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, width: int, heads: int):
        self.query = Linear(width, width)
        self.key = Linear(width, width)
        self.value = Linear(width, width)
        self.output = Linear(width, width)
        self.heads = heads

    def __call__(self, x: jax.Array, name: str, out: dict[str, jax.Array]) -> jax.Array:
        apart = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        query, key, value = (
            linear(x).reshape(apart) for linear in (self.query, self.key, self.value)
        )
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key) / math.sqrt(apart[-1])
        heads = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), value)
        for i in range(self.heads):
            out[f"{name}/head{i}"] = heads[:, :, i]
        out[f"{name}/attention"] = x = self.output(heads.reshape(x.shape))
        return x


class _MLP(nnx.Module):
    def __init__(self, width: int, hidden: int, activation: str):
        self.hidden = Linear(width, hidden)
        self.output = Linear(hidden, width)
        self.activation = activation

    def __call__(self, x: jax.Array, name: str, out: dict[str, jax.Array]) -> jax.Array:
        x = self.hidden(x)
        quick = self.activation == "quick_gelu"
        x = x * jax.nn.sigmoid(1.702 * x) if quick else jax.nn.gelu(x, approximate=False)
        out[f"{name}/mlp/hidden"] = x
        out[f"{name}/mlp"] = x = self.output(x)
        return x


class _Block(nnx.Module):
    """Attention, then an MLP, each of normalised tokens and added to what it was given."""

    def __init__(self, vit: VisionTransformer):
        self.norm1 = LayerNorm(vit.width, vit.epsilon)
        self.attention = _Attention(vit.width, vit.heads)
        self.norm2 = LayerNorm(vit.width, vit.epsilon)
        self.mlp = _MLP(vit.width, vit.hidden, vit.activation)
        if vit.layer_scale:
            self.attention_scale = nnx.Param(jnp.ones(vit.width))
            self.mlp_scale = nnx.Param(jnp.ones(vit.width))
        self.layer_scale = vit.layer_scale

    def __call__(self, x: jax.Array, name: str, out: dict[str, jax.Array]) -> jax.Array:
        branch = self.attention(self.norm1(x), name, out)
        x = x + (branch * along_last(self.attention_scale, x) if self.layer_scale else branch)
        branch = self.mlp(self.norm2(x), name, out)
        out[name] = x = x + (branch * along_last(self.mlp_scale, x) if self.layer_scale else branch)
        return x


class _Network(nnx.Module):
    def __init__(self, vit: VisionTransformer):
        width = vit.width
        self.patches = Convolution(3, width, vit.patch, vit.patch, "VALID", bias=not vit.pre_norm)
        self.class_token = nnx.Param(jnp.zeros(width))
        self.positions = nnx.Param(jnp.zeros((1 + vit.grid**2, width)))
        if vit.pre_norm:
            self.norm_pre = LayerNorm(width, vit.epsilon)
        for i in range(vit.depth):
            setattr(self, f"block{i}", _Block(vit))
        self.norm = LayerNorm(width, vit.epsilon)
        if vit.outputs is not None:
            setattr(self, vit.head, Linear(width, vit.outputs, bias=vit.head == "logits"))
        self.vit = vit

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        out: dict[str, jax.Array] = {}
        x = self.patches(x)
        n, rows, columns, width = x.shape
        first = jnp.broadcast_to(along_last(self.class_token, x[:, :, 0]), (n, 1, width))
        x = jnp.concatenate([first, x.reshape(n, rows * columns, width)], 1)
        positions = _interpolate(self.positions[...], self.vit.grid, rows, columns)
        out["embeddings"] = x = x + positions[None]
        if self.vit.pre_norm:
            out["norm_pre"] = x = self.norm_pre(x)
        for i in range(self.vit.depth):
            x = getattr(self, f"block{i}")(x, f"block{i}", out)
            out[f"block{i}/map"] = x[:, 1:].reshape(n, rows, columns, width)
        out["norm"] = x = self.norm(x)
        if self.vit.head == "features":
            out["features"] = x[:, 0]
            return out
        out["pool"] = x = x[:, 0]
        out[self.vit.head] = getattr(self, self.vit.head)(x)
        return out


def _interpolate(positions: jax.Array, grid: int, rows: int, columns: int) -> jax.Array:
    """Positions (1 + grid², c) of a square of patches for a rectangle of them.

    The class token's stays; the others are resampled as `interpolate_pos_encoding` of
    transformers does it: bicubic, no antialiasing. timm antialiases, and DINOv2's own code scales
    by a tenth of a patch more.
    """
    if rows == columns == grid:
        return positions
    width = positions.shape[1]
    patches = jnp.einsum(
        "ah,bw,hwc->abc",
        jnp.asarray(_bicubic(grid, rows), positions.dtype),
        jnp.asarray(_bicubic(grid, columns), positions.dtype),
        positions[1:].reshape(grid, grid, width),
        optimize="optimal",
        precision="highest",
    )
    return jnp.concatenate([positions[:1], patches.reshape(rows * columns, width)])


def _bicubic(inputs: int, outputs: int) -> np.ndarray:
    """Matrix (outputs, inputs) of PyTorch's bicubic interpolation, `align_corners=False`."""
    centres = (np.arange(outputs) + 0.5) * inputs / outputs - 0.5
    left = np.floor(centres).astype(int)
    matrix = np.zeros((outputs, inputs))
    for place in (left - 1, left, left + 1, left + 2):
        t = np.abs(centres - place)
        near = ((_KEYS + 2) * t - (_KEYS + 3)) * t**2 + 1
        far = _KEYS * (((t - 5) * t + 8) * t - 4)
        # Beyond the edge the last position repeats.
        clipped = np.clip(place, 0, inputs - 1)
        np.add.at(matrix, (np.arange(outputs), clipped), np.where(t <= 1, near, far))
    return matrix.astype(np.float32)


def _patches(source: str) -> tuple[Rule, ...]:
    return (
        Rule("patches/kernel", f"{source}.weight", from_oihw),
        Rule("patches/bias", f"{source}.bias"),
    )


def _tokens(class_token: str, positions: str) -> tuple[Rule, ...]:
    """Of a class token (1, 1, c) and positions (1, t, c)."""
    return (
        Rule("class_token", class_token, itemgetter((0, 0))),
        Rule("positions", positions, itemgetter(0)),
    )


def _affine(path: str, source: str, parts: Mapping[str, str]) -> tuple[Rule, ...]:
    """Of linear maps and normalisations, which have a weight and a bias each."""
    return tuple(
        rule
        for part, name in parts.items()
        for rule in (
            Rule(f"{path}{part}/kernel", f"{source}{name}.weight", np.transpose),
            Rule(f"{path}{part}/scale", f"{source}{name}.weight"),
            Rule(f"{path}{part}/bias", f"{source}{name}.bias"),
        )
    )


def _thirds(weight: str, bias: str) -> tuple[Rule, ...]:
    """Of one matrix for query, key and value, and one bias."""

    def rules(part: str, third: int) -> tuple[Rule, Rule]:
        def take(array: np.ndarray) -> np.ndarray:
            return np.split(array, 3)[third].T

        path = rf"{_BLOCK}attention/{part}"
        return Rule(f"{path}/kernel", weight, take), Rule(f"{path}/bias", bias, take)

    return (*rules("query", 0), *rules("key", 1), *rules("value", 2))


def _scales(attention: str, mlp: str) -> tuple[Rule, ...]:
    return (
        Rule(rf"{_BLOCK}attention_scale", attention),
        Rule(rf"{_BLOCK}mlp_scale", mlp),
    )


_TIMM = KeyLayout(
    "timm",
    (
        *_patches("patch_embed.proj"),
        *_tokens("cls_token", "pos_embed"),
        *_affine(
            _BLOCK,
            r"blocks.\1.",
            {
                "norm1": "norm1",
                "attention/output": "attn.proj",
                "norm2": "norm2",
                "mlp/hidden": "mlp.fc1",
                "mlp/output": "mlp.fc2",
            },
        ),
        *_thirds(r"blocks.\1.attn.qkv.weight", r"blocks.\1.attn.qkv.bias"),
        *_scales(r"blocks.\1.ls1.gamma", r"blocks.\1.ls2.gamma"),
        *_affine("", "", {"norm": "norm", "logits": "head"}),
    ),
)

# The file of DINOv2's authors has the same names, and the token for masked patches of training.
_TIMM_DINOV2 = replace(_TIMM, ignore="mask_token")


def _torchvision(name: str, hidden: str, output: str) -> KeyLayout:
    block = r"encoder.layers.encoder_layer_\1."
    return KeyLayout(
        name,
        (
            *_patches("conv_proj"),
            *_tokens("class_token", "encoder.pos_embedding"),
            *_affine(
                _BLOCK,
                block,
                {
                    "norm1": "ln_1",
                    "attention/output": "self_attention.out_proj",
                    "norm2": "ln_2",
                    "mlp/hidden": hidden,
                    "mlp/output": output,
                },
            ),
            *_thirds(
                f"{block}self_attention.in_proj_weight", f"{block}self_attention.in_proj_bias"
            ),
            *_affine("", "", {"norm": "encoder.ln", "logits": "heads.head"}),
        ),
    )


# As in its file, and as its code calls the MLP now.
_TORCHVISION = (
    _torchvision("torchvision", "mlp.linear_1", "mlp.linear_2"),
    _torchvision("torchvision state_dict", "mlp.0", "mlp.3"),
)


def _transformers(
    name: str, root: str, block: str, parts: Mapping[str, str], ignore: str = r"(?!)"
) -> KeyLayout:
    return KeyLayout(
        name,
        (
            *_patches(f"{root}embeddings.patch_embeddings.projection"),
            *_tokens(f"{root}embeddings.cls_token", f"{root}embeddings.position_embeddings"),
            *_affine(_BLOCK, f"{root}{block}", parts),
            *_scales(rf"{root}{block}layer_scale1.lambda1", rf"{root}{block}layer_scale2.lambda1"),
            *_affine("", "", {"norm": f"{root}layernorm", "logits": "classifier"}),
        ),
        ignore,
    )


_ATTENTION = {
    "attention/query": "attention.attention.query",
    "attention/key": "attention.attention.key",
    "attention/value": "attention.attention.value",
    "attention/output": "attention.output.dense",
}

_NEW_ATTENTION = {
    "attention/query": "attention.q_proj",
    "attention/key": "attention.k_proj",
    "attention/value": "attention.v_proj",
    "attention/output": "attention.o_proj",
}

_VIT_NORMS = {"norm1": "layernorm_before", "norm2": "layernorm_after"}

_DINOV2_NORMS = {"norm1": "norm1", "norm2": "norm2"}

_MLP_NAMES = {"mlp/hidden": "mlp.fc1", "mlp/output": "mlp.fc2"}

_VIT_MLP = {"mlp/hidden": "intermediate.dense", "mlp/output": "output.dense"}

# As in its files, and as its code calls the same tensors now.
_TRANSFORMERS = (
    _transformers(
        "transformers",
        "vit.",
        r"encoder.layer.\1.",
        {**_VIT_NORMS, **_ATTENTION, **_VIT_MLP},
    ),
    _transformers(
        "transformers state_dict",
        "vit.",
        r"layers.\1.",
        {**_VIT_NORMS, **_NEW_ATTENTION, **_MLP_NAMES},
    ),
)

_TRANSFORMERS_DINOV2 = (
    _transformers(
        "transformers",
        "",
        r"encoder.layer.\1.",
        {**_DINOV2_NORMS, **_ATTENTION, **_MLP_NAMES},
        r"embeddings\.mask_token",
    ),
    _transformers(
        "transformers state_dict",
        "",
        r"encoder.layer.\1.",
        {**_DINOV2_NORMS, **_NEW_ATTENTION, **_MLP_NAMES},
        r"embeddings\.mask_token",
    ),
)

# Both of a whole CLIP or of its image tower with the projection alone.
_TRANSFORMERS_CLIP = KeyLayout(
    "transformers",
    (
        *_patches("vision_model.embeddings.patch_embedding"),
        Rule("class_token", "vision_model.embeddings.class_embedding"),
        Rule("positions", "vision_model.embeddings.position_embedding.weight"),
        *_affine(
            _BLOCK,
            r"vision_model.encoder.layers.\1.",
            {
                "norm1": "layer_norm1",
                "attention/query": "self_attn.q_proj",
                "attention/key": "self_attn.k_proj",
                "attention/value": "self_attn.v_proj",
                "attention/output": "self_attn.out_proj",
                "norm2": "layer_norm2",
                **_MLP_NAMES,
            },
        ),
        *_affine(
            "",
            "",
            {
                "norm_pre": "vision_model.pre_layrnorm",
                "norm": "vision_model.post_layernorm",
                "projection": "visual_projection",
            },
        ),
    ),
    ignore=r"text_model\..*|text_projection\.weight|logit_scale"
    r"|vision_model\.embeddings\.position_ids",
)

_OPEN_CLIP = KeyLayout(
    "open_clip",
    (
        *_patches("visual.conv1"),
        Rule("class_token", "visual.class_embedding"),
        Rule("positions", "visual.positional_embedding"),
        *_affine(
            _BLOCK,
            r"visual.transformer.resblocks.\1.",
            {
                "norm1": "ln_1",
                "attention/output": "attn.out_proj",
                "norm2": "ln_2",
                "mlp/hidden": "mlp.c_fc",
                "mlp/output": "mlp.c_proj",
            },
        ),
        *_thirds(
            r"visual.transformer.resblocks.\1.attn.in_proj_weight",
            r"visual.transformer.resblocks.\1.attn.in_proj_bias",
        ),
        *_affine("", "visual.", {"norm_pre": "ln_pre", "norm": "ln_post"}),
        Rule("projection/kernel", "visual.proj"),
    ),
    # The text tower, and what OpenAI's own files say of sizes.
    ignore=r"(transformer|token_embedding|ln_final)\..*|positional_embedding|text_projection"
    r"|logit_scale|input_resolution|context_length|vocab_size",
)

_AUGREG = Input(size=(224, 224), min_size=16, multiple_of=16, mean=0.5, std=0.5)


@model_entry(
    parameters=22_050_664,
    input=_AUGREG,
    accuracy=0.81384,
    sources=(Hub("timm/vit_small_patch16_224.augreg_in21k_ft_in1k", licence="Apache-2.0"),),
    layouts=(_TIMM, *_TRANSFORMERS),
    labels=labels.imagenet,
)
def vit_small_patch16() -> VisionTransformer:
    """ViT-S/16 trained on ImageNet-21k, then ImageNet.

    Weights: Steiner et al., "How to train your ViT?" (2021); accuracy as timm measured it.
    """
    return VisionTransformer(patch=16, width=384, depth=12, heads=6, hidden=1536, grid=14)


@model_entry(
    parameters=86_567_656,
    input=_AUGREG,
    accuracy=0.84532,
    sources=(
        Hub(
            "timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
            revision="b5b38b8f7dd93ce67d12e356a8771556b95c8cf9",
            licence="Apache-2.0",
        ),
    ),
    layouts=(_TIMM, *_TRANSFORMERS),
    labels=labels.imagenet,
)
def vit_base_patch16() -> VisionTransformer:
    """ViT-B/16 trained on ImageNet-21k, then ImageNet.

    Weights: Steiner et al., "How to train your ViT?" (2021); accuracy as timm measured it.
    """
    return VisionTransformer(patch=16, width=768, depth=12, heads=12, hidden=3072, grid=14)


@model_entry(
    parameters=86_567_656,
    input=replace(_AUGREG, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    accuracy=0.81072,
    sources=(torchvision("vit_b_16-c867db91.pth"),),
    layouts=_TORCHVISION,
    labels=labels.imagenet,
)
def vit_base_patch16_torchvision() -> VisionTransformer:
    """ViT-B/16 trained on ImageNet alone by torchvision.

    Weights: the recipe of Touvron et al. (2021), modified; IMAGENET1K_V1 of torchvision.
    """
    return VisionTransformer(patch=16, width=768, depth=12, heads=12, hidden=3072, grid=14)


@model_entry(
    parameters=22_056_192,
    input=Input(size=(224, 224), min_size=14, multiple_of=14, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    accuracy=None,
    sources=(
        Hub(
            "facebook/dinov2-small",
            revision="ed25f3a31f01632728cabb09d1542f84ab7b0056",
            digest="ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
            licence="Apache-2.0",
        ),
        Hub(
            "timm/vit_small_patch14_dinov2.lvd142m",
            revision="cace07adb9220de26eb51226ecbef6d04d35defe",
            licence="Apache-2.0",
        ),
    ),
    layouts=(*_TRANSFORMERS_DINOV2, _TIMM_DINOV2),
)
def dinov2_small_patch14() -> VisionTransformer:
    """DINOv2 ViT-S/14, trained without labels.

    Weights: Oquab et al. (2023), distilled from the giant model; positions for 518 pixels.
    """
    return VisionTransformer(
        patch=14,
        width=384,
        depth=12,
        heads=6,
        hidden=1536,
        grid=37,
        head="features",
        outputs=None,
        layer_scale=True,
    )


@model_entry(
    parameters=87_849_216,
    input=Input(size=(224, 224), min_size=32, multiple_of=32, mean=_CLIP_MEAN, std=_CLIP_STD),
    accuracy=None,
    sources=(
        Hub(
            "timm/vit_base_patch32_clip_224.openai",
            "open_clip_model.safetensors",
            revision="ab5b8ef490e86faa07d3523926b842c765de1de5",
            licence="MIT",
        ),
        Hub("openai/clip-vit-base-patch32", "pytorch_model.bin", licence="MIT"),
    ),
    layouts=(_TRANSFORMERS_CLIP, _OPEN_CLIP),
)
def clip_base_patch32() -> VisionTransformer:
    """Image tower of OpenAI's CLIP ViT-B/32, with its projection.

    Weights: Radford et al. (2021).
    """
    return VisionTransformer(
        patch=32,
        width=768,
        depth=12,
        heads=12,
        hidden=3072,
        grid=7,
        head="projection",
        outputs=512,
        activation="quick_gelu",
        pre_norm=True,
        epsilon=1e-5,
    )
