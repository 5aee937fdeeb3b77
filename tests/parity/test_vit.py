"""The same weights run by transformers, and under the names of every publisher."""

import jax
import numpy as np
import pytest

from featvis.errors import CheckpointError
from featvis.weights.files import read_weights
from featvis.zoo.networks.vit import (
    VisionTransformer,
    clip_base_patch32,
    dinov2_small_patch14,
    vit_base_patch16,
    vit_base_patch16_torchvision,
    vit_small_patch16,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PATCH, GRID, WIDTH, HEADS, DEPTH, HIDDEN = 8, 4, 48, 3, 2, 80
SIZES = {
    "patch_size": PATCH,
    "image_size": PATCH * GRID,
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_hidden_layers": DEPTH,
}
SMALL = {
    "patch": PATCH, "grid": GRID, "width": WIDTH, "heads": HEADS, "depth": DEPTH, "hidden": HIDDEN,
}  # fmt: skip
TEXT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
    "vocab_size": 5, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

VIT = VisionTransformer(**SMALL, outputs=7)
DINOV2 = VisionTransformer(
    **{**SMALL, "hidden": 3 * WIDTH}, head="features", outputs=None, layer_scale=True
)
CLIP = VisionTransformer(
    **SMALL,
    head="projection",
    outputs=20,
    activation="quick_gelu",
    pre_norm=True,
    epsilon=1e-5,
)


def make_vit():
    config = transformers.ViTConfig(
        **SIZES, intermediate_size=HIDDEN, num_labels=7, layer_norm_eps=1e-6
    )
    return transformers.ViTForImageClassification(config)


def make_dinov2():
    return transformers.Dinov2Model(transformers.Dinov2Config(**SIZES, mlp_ratio=3))


def make_clip():
    config = transformers.CLIPVisionConfig(**SIZES, intermediate_size=HIDDEN, projection_dim=20)
    return transformers.CLIPVisionModelWithProjection(config)


class Family:
    """A model of transformers with random weights, and what we make of its files."""

    def __init__(self, architecture, entry, make, folder):
        torch.manual_seed(0)
        self.architecture, self.entry = architecture, entry
        self.model = make().eval()
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                unit = name.endswith("lambda1") or ("norm" in name and name.endswith("weight"))
                value.copy_((1.0 if unit else 0.0) + 0.2 * torch.randn(value.shape))
        # Under the names of the published files, which are not those of the running code.
        self.model.save_pretrained(folder)
        self.published = read_weights(folder / "model.safetensors")
        self.params = self.load(self.published)

    def load(self, tensors):
        return self.architecture.params_from(tensors, self.entry.layouts, "some file")


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return Family(VIT, vit_base_patch16, make_vit, tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    return Family(DINOV2, dinov2_small_patch14, make_dinov2, tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return Family(CLIP, clip_base_patch32, make_clip, tmp_path_factory.mktemp("clip"))


@pytest.fixture(params=["vit", "dinov2", "clip"])
def family(request):
    return request.getfixturevalue(request.param)


def modules(model):
    """The modules whose outputs, or inputs, are our layers."""
    if isinstance(model, transformers.ViTForImageClassification):
        tower, blocks = model.vit, [(b, b.attention.o_proj) for b in model.vit.layers]
        outputs = {"norm": tower.layernorm, "logits": model.classifier}
        inputs = {"pool": model.classifier}
    elif isinstance(model, transformers.Dinov2Model):
        tower, blocks = model, [(b, b.attention.o_proj) for b in model.encoder.layer]
        outputs, inputs = {"norm": model.layernorm}, {}
    else:
        tower = model.vision_model
        blocks = [(b, b.self_attn.out_proj) for b in tower.encoder.layers]
        outputs = {"norm_pre": tower.pre_layrnorm, "projection": model.visual_projection}
        inputs = {"pool": model.visual_projection}
    outputs["embeddings"] = tower.embeddings
    for i, (block, projection) in enumerate(blocks):
        outputs |= {
            f"block{i}": block, f"block{i}/attention": projection, f"block{i}/mlp": block.mlp,
        }  # fmt: skip
        inputs |= {f"block{i}/heads": projection, f"block{i}/mlp/hidden": block.mlp.fc2}
    return outputs, inputs


def reference(model, image):
    """Activations of transformers' model under our names."""
    found, handles = {}, []

    def keep(name, value):
        found[name] = value[0] if isinstance(value, tuple) else value

    outputs, inputs = modules(model)
    for name, module in outputs.items():
        handles.append(
            module.register_forward_hook(lambda _, __, value, name=name: keep(name, value))
        )
    for name, module in inputs.items():
        handles.append(
            module.register_forward_pre_hook(lambda _, value, name=name: keep(name, value))
        )
    # DINOv2's positions are always interpolated.
    dinov2 = isinstance(model, transformers.Dinov2Model)
    options = {} if dinov2 else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        output = model(torch.from_numpy(image).permute(0, 3, 1, 2), **options)
        if dinov2:
            found["features"] = output.pooler_output
        elif "projection" in found:
            # CLIP normalises the class token alone.
            found["norm"] = model.vision_model.post_layernorm(found[f"block{DEPTH - 1}"])
    for handle in handles:
        handle.remove()
    rows, columns = (side // PATCH for side in image.shape[1:3])
    for i in range(DEPTH):
        heads = found.pop(f"block{i}/heads").unflatten(2, (HEADS, -1))
        found |= {f"block{i}/head{h}": heads[:, :, h] for h in range(HEADS)}
        found[f"block{i}/map"] = found[f"block{i}"][:, 1:].unflatten(1, (rows, columns))
    return {name: value.numpy() for name, value in found.items()}


# As trained, not square, as many patches as trained in another shape.
@pytest.mark.parametrize("size", [(32, 32), (24, 56), (64, 16)])
def test_every_layer_agrees(family, size):
    image = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    expected = reference(family.model, image)
    found = jax.jit(family.architecture)(family.params, image)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=1e-4, atol=1e-4 * np.abs(value).max(), err_msg=name
        )


@pytest.mark.parametrize(("grid", "rows", "columns"), [(37, 16, 21), (14, 15, 33), (7, 1, 40)])
def test_positions_are_interpolated_as_by_torch(grid, rows, columns):
    # Blocks apart, a network whose patches and class token are 0 shows its positions.
    network = VisionTransformer(
        patch=1, width=5, depth=0, heads=1, hidden=1, grid=grid, head="features", outputs=None
    )
    positions = np.random.default_rng(0).normal(size=(1 + grid**2, 5)).astype(np.float32)
    params = {
        **network.random_params(),
        "patches": {"kernel": np.zeros((1, 1, 3, 5)), "bias": np.zeros(5)},
        "class_token": np.zeros(5),
        "positions": positions,
    }
    found = jax.jit(network)(params, np.zeros((1, rows, columns, 3), np.float32))["embeddings"][0]
    square = torch.from_numpy(positions[1:].reshape(1, grid, grid, 5)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(square, (rows, columns), mode="bicubic")
    expected = expected[0].flatten(1).T.numpy()
    np.testing.assert_array_equal(found[0], positions[0])
    np.testing.assert_allclose(found[1:], expected, atol=2e-5)


# ---- the same tensors under other publishers' names


def renamed(tensors, names, fused=None):
    """Tensors under new names, the first part that fits being replaced; q, k, v as one."""
    out = {}
    for name, value in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        out[name] = value
    for i in range(DEPTH) if fused else ():
        for old, new in fused.items():
            parts = [out.pop(old.format(i=i, part=part)) for part in ("query", "key", "value")]
            out[new.format(i=i)] = np.concatenate(parts)
    return out


def timm(family):
    names = {
        "vit.": "", "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "encoder.layer.": "blocks.", "attention.output.dense": "attn.proj",
        "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2",
        "layernorm_before": "norm1", "layernorm_after": "norm2", "layernorm": "norm",
        "layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma",
        "classifier": "head",
    }  # fmt: skip
    fused = {
        f"blocks.{{i}}.attention.attention.{{part}}.{leaf}": f"blocks.{{i}}.attn.qkv.{leaf}"
        for leaf in ("weight", "bias")
    }
    tensors = {k: v for k, v in family.published.items() if not k.endswith("mask_token")}
    return renamed(tensors, names, fused)


def torchvision(family, hidden, output):
    block = "encoder.layers.encoder_layer_"
    names = {
        "vit.embeddings.cls_token": "class_token",
        "vit.embeddings.position_embeddings": "encoder.pos_embedding",
        "vit.embeddings.patch_embeddings.projection": "conv_proj",
        "vit.encoder.layer.": block, "attention.output.dense": "self_attention.out_proj",
        "intermediate.dense": hidden, "output.dense": output,
        "layernorm_before": "ln_1", "layernorm_after": "ln_2",
        "vit.layernorm": "encoder.ln", "classifier": "heads.head",
    }  # fmt: skip
    fused = {
        f"{block}{{i}}.attention.attention.{{part}}.{leaf}": (
            f"{block}{{i}}.self_attention.in_proj_{leaf}"
        )
        for leaf in ("weight", "bias")
    }
    return renamed(family.published, names, fused)


def open_clip(family):
    names = {
        "vision_model.": "visual.", "embeddings.class_embedding": "class_embedding",
        "embeddings.patch_embedding": "conv1", "embeddings.position_embedding.weight":
        "positional_embedding", "pre_layrnorm": "ln_pre", "post_layernorm": "ln_post",
        "encoder.layers.": "transformer.resblocks.", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
        "self_attn.q_proj": "query", "self_attn.k_proj": "key", "self_attn.v_proj": "value",
        "visual_projection.weight": "visual.proj",
    }  # fmt: skip
    block = "visual.transformer.resblocks.{i}."
    fused = {
        f"{block}{{part}}.{leaf}": f"{block}attn.in_proj_{leaf}" for leaf in ("weight", "bias")
    }
    tensors = renamed(family.published, names, fused)
    text = {
        "positional_embedding": np.zeros((77, 16)), "text_projection": np.zeros((16, 20)),
        "logit_scale": np.zeros(()), "token_embedding.weight": np.zeros((5, 16)),
        "transformer.resblocks.0.ln_1.weight": np.zeros(16), "ln_final.weight": np.zeros(16),
        "input_resolution": np.array(224), "context_length": np.array(77),
        "vocab_size": np.array(5),
    }  # fmt: skip
    return {**tensors, "visual.proj": tensors["visual.proj"].T, **text}


def same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        if isinstance(value, dict):
            same(found[name], value)
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_state_dict_of_transformers(family):
    tensors = {name: value.numpy() for name, value in family.model.state_dict().items()}
    same(family.load(tensors), family.params)


@pytest.mark.parametrize("name", ["vit", "dinov2"])
def test_a_file_of_timm(name, request):
    family = request.getfixturevalue(name)
    tensors = timm(family)
    assert "blocks.1.attn.qkv.weight" in tensors
    same(family.load(tensors), family.params)
    # That of DINOv2's authors has the token of its training.
    if name == "dinov2":
        same(family.load({**tensors, "mask_token": np.zeros((1, WIDTH))}), family.params)
    assert vit_small_patch16.layouts == vit_base_patch16.layouts


@pytest.mark.parametrize("mlp", [("mlp.linear_1", "mlp.linear_2"), ("mlp.0", "mlp.3")])
def test_a_file_of_torchvision(vit, mlp):
    tensors = torchvision(vit, *mlp)
    assert "encoder.layers.encoder_layer_1.self_attention.in_proj_bias" in tensors
    found = VIT.params_from(tensors, vit_base_patch16_torchvision.layouts, "some file")
    same(found, vit.params)


def test_a_file_of_open_clip(clip):
    tensors = open_clip(clip)
    assert "visual.transformer.resblocks.1.mlp.c_proj.bias" in tensors
    same(clip.load(tensors), clip.params)


def test_a_file_of_the_whole_of_clip(clip, tmp_path):
    vision = {**SIZES, "intermediate_size": HIDDEN, "projection_dim": 20}
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=20)
    whole = transformers.CLIPModel(config)
    missing, _ = whole.load_state_dict(clip.model.state_dict(), strict=False)
    assert all(name.startswith(("text_", "logit_scale")) for name in missing)
    whole.save_pretrained(tmp_path)
    tensors = read_weights(tmp_path / "model.safetensors")
    assert any(name.startswith("text_model.encoder.") for name in tensors)
    # Older files have these too.
    for tower in ("text_model", "vision_model"):
        tensors[f"{tower}.embeddings.position_ids"] = np.arange(17)[None]
    same(clip.load(tensors), clip.params)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (
            {"blocks.1.mlp.fc1.bias": None},
            ["- blocks.1.mlp.fc1.bias for block1/mlp/hidden/bias (80,)"],
        ),
        ({"blocks.2.norm1.weight": np.zeros(WIDTH)}, ["+ blocks.2.norm1.weight (48,)"]),
        (
            {"pos_embed": np.zeros((1, 10, WIDTH))},
            ["- pos_embed for positions (17, 48)", "+ pos_embed (1, 10, 48)"],
        ),
        (
            {"blocks.0.attn.qkv.bias": np.zeros(3 * WIDTH + 1)},
            [
                "- blocks.0.attn.qkv.bias for block0/attention/query/bias (48,)",
                "+ blocks.0.attn.qkv.bias (145,)",
            ],
        ),
    ],
)
def test_what_does_not_fit_is_listed(vit, change, lines):
    tensors = {**timm(vit), **change}
    tensors = {name: value for name, value in tensors.items() if value is not None}
    with pytest.raises(CheckpointError, match="in the layout of timm") as caught:
        vit.load(tensors)
    for line in lines:
        assert f"\n  {line}" in str(caught.value)
