"""Networks of the zoo with another head, with none, and of other input channels."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

import featvis as fv
from featvis import zoo
from featvis.weights.layouts import source_of
from featvis.weights.parts import Part, WeightsFile

pytestmark = pytest.mark.usefixtures("quick_to_compile")

ENTRY = zoo.entries()["cifar_resnet20"]
SIDE = 16


def trained(classes=10, channels=3, seed=0):
    """A checkpoint as its authors write it, with random weights."""
    rng = np.random.default_rng(seed)
    tensors = {}

    def normalised(conv, norm, inputs, outputs):
        kernel = rng.normal(size=(outputs, inputs, 3, 3)) / np.sqrt(9 * inputs)
        tensors[f"{conv}.weight"] = kernel.astype(np.float32)
        for part, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            tensors[f"{norm}.{part}"] = np.full(outputs, value, np.float32)

    normalised("module.conv1", "module.bn1", channels, 16)
    inputs = 16
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(3):
            name = f"module.layer{stage}.{block}"
            normalised(f"{name}.conv1", f"{name}.bn1", inputs, width)
            normalised(f"{name}.conv2", f"{name}.bn2", width, width)
            inputs = width
    tensors["module.linear.weight"] = rng.normal(size=(classes, 64)).astype(np.float32)
    tensors["module.linear.bias"] = rng.normal(size=classes).astype(np.float32)
    return tensors


def load(tensors, folder):
    np.savez(folder / "net.npz", **tensors)
    return fv.load("cifar_resnet20", weights=folder / "net.npz")


def image(channels=3):
    rng = np.random.default_rng(0)
    return rng.uniform(size=(2, SIDE, SIDE, channels)).astype(np.float32)


@pytest.mark.thorough
def test_another_number_of_classes(tmp_path):
    tensors = trained(classes=7)
    model = load(tensors, tmp_path)
    assert model.layers()["logits"] == (7,)
    assert model.labels is None
    assert not model.left_out
    acts = model(image())
    expected = acts["pool"] @ tensors["module.linear.weight"].T + tensors["module.linear.bias"]
    np.testing.assert_allclose(acts["logits"], expected, rtol=1e-4, atol=1e-4)
    whole = load(trained(), tmp_path)(image())
    np.testing.assert_allclose(acts["pool"], whole["pool"], rtol=1e-4, atol=1e-5)
    result = fv.class_model(model, 6, steps=1, size=(SIDE, SIDE), progress=False)
    assert result.images.shape == (1, SIDE, SIDE, 3)


@pytest.mark.parametrize("head", [{}, {"module.fc.0.weight": (5, 64), "module.fc.0.bias": (5,)}])
def test_no_head_or_one_of_another_kind(head, tmp_path):
    tensors = {k: v for k, v in trained().items() if "linear" not in k}
    more = {name: np.ones(shape, np.float32) for name, shape in head.items()}
    model = load({**tensors, **more}, tmp_path)
    whole = load(trained(), tmp_path)
    assert list(model.layers()) == list(whole.layers())[:-1]
    assert set(model.left_out) == {"logits"}
    assert "logits/kernel" in model.left_out["logits"]
    assert "linear.weight" in model.origin
    acts, expected = model(image()), whole(image())
    for name, value in acts.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)


def test_other_input_channels(tmp_path):
    tensors = trained(channels=1)
    model = load(tensors, tmp_path)
    assert model.input.channels == 1
    grey = image(1)
    stem = tensors["module.conv1.weight"].transpose(2, 3, 1, 0)
    x = (grey - np.mean(ENTRY.input.mean)) / np.mean(ENTRY.input.std)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    conv = sum(
        padded[:, i : i + SIDE, j : j + SIDE] @ stem[i, j] for i in range(3) for j in range(3)
    )
    expected = np.maximum(conv / np.sqrt(1 + 1e-5), 0)
    np.testing.assert_allclose(model(grey)["conv1"], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {k: v for k, v in t.items() if "layer1" not in k},
        lambda t: {**t, "module.layer3.3.conv1.weight": np.ones((64, 64, 3, 3), np.float32)},
        lambda t: (
            {k: v for k, v in t.items() if "linear" not in k}
            | {"module.layer3.3.conv1.weight": np.ones((64, 64, 3, 3), np.float32)}
        ),
        lambda t: {k: np.concatenate([v, v]) if "layer2" in k else v for k, v in t.items()},
    ],
)
def test_another_network(change, tmp_path):
    with pytest.raises(fv.CheckpointError, match="differences from CifarResNet"):
        load(change(trained()), tmp_path)


# ---- every family --------------------------------------------------------------------------

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
FAMILIES = [
    "alexnet",
    "darknet_tiny",
    "dinov2_small_patch14",
    "efficientnet_lite0",
    "googlenet",
    "mobilenet_v2",
    "resnet18",
    "squeezenet1_1",
    "vit_small_patch16",
]


def stored(shape, transform):
    """The shape of a tensor that a rule makes one of this shape of."""
    for order in itertools.permutations(shape):
        # As it is, with axes of length 1, or one of three in a row.
        for axes in (order, (1, *order), (1, 1, *order), (3 * (order or (1,))[0], *order[1:])):
            try:
                if transform is None or transform(np.broadcast_to(0.0, axes)).shape == shape:
                    return axes
            except (ValueError, IndexError):
                continue
    raise AssertionError(f"no tensor gives {shape}")


def tensors_of(architecture, layout, shapes):
    """A checkpoint in a layout, of a network whose parameters have these shapes."""
    norms = {
        "/".join(map(str, path))
        for path, module in nnx.iter_modules(nnx.eval_shape(architecture.build))
        if getattr(module, "norm", None) is not None and not layout.folded
    }
    found = {}
    for path, shape in shapes.items():
        module, _, leaf = path.rpartition("/")
        parts = BATCH_NORM if leaf == "bias" and module in norms else (leaf,)
        for part in parts:
            source, transform = source_of("/".join(filter(None, (module, part))), layout.rules)
            found[source] = np.broadcast_to(np.float32(1), stored(shape, transform))
    return found


def nearest(entry, layout, shapes):
    tensors = tensors_of(entry.architecture(), layout, shapes)
    file = WeightsFile(Path("net.npz"), "", (Part("", tensors),))
    return entry.architecture().nearest(file, [layout], entry.input)[1]


def layers_of(network, entry, channels=3):
    structs = {p: jax.ShapeDtypeStruct(s, jnp.float32) for p, s in network.shapes().items()}
    x = jax.ShapeDtypeStruct((1, *entry.input.size, channels), jnp.float32)
    found = jax.eval_shape(network, traverse_util.unflatten_dict(structs, sep="/"), x)
    return {name: value.shape[1:] for name, value in found.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_with_another_head_or_none_or_other_images(name):
    entry = zoo.entries()[name]
    architecture, layout = entry.architecture(), entry.layouts[0]
    own, usual = architecture.shapes(), layers_of(architecture, entry)
    assert nearest(entry, layout, own) is None
    first = next(p for p, s in own.items() if len(s) == 4 and s[2] == 3)
    network = nearest(entry, layout, {**own, first: (*own[first][:2], 4, own[first][3])})
    assert (network.channels, network.dropped) == (4, ())
    assert layers_of(network, entry, 4) == usual
    if "logits" not in usual:
        return
    (classes,) = usual["logits"]
    head = [path for path, shape in own.items() if shape[-1] == classes]
    other = nearest(entry, layout, {**own, **{path: (*own[path][:-1], 7) for path in head}})
    assert layers_of(other, entry)["logits"] == (7,)
    assert not other.dropped
    none = nearest(entry, layout, {path: s for path, s in own.items() if path not in head})
    left = {name: shape for name, shape in usual.items() if name not in none.dropped}
    assert none.dropped[-1] == "logits"
    assert layers_of(none, entry) == left
    assert not any(classes == shape[-1] for shape in left.values())
