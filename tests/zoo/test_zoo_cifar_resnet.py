import hashlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import featvis as fv
from featvis import zoo
from featvis.errors import CheckpointError
from featvis.zoo.networks.cifar_resnet import CifarResNet

BLOCKS = {"cifar_resnet20": 3, "cifar_resnet56": 9}


def entry(name="cifar_resnet20"):
    return zoo.entries()[name]


def half(size):
    return tuple(-(-side // 2) for side in size)


def expected_layers(blocks, size):
    layers = {"conv1": (*size, 16)}
    for stage, width in enumerate((16, 32, 64), 1):
        size = half(size) if stage > 1 else size
        for i in range(blocks):
            for suffix in ("/conv1", "/conv2", ""):
                layers[f"layer{stage}_{i}{suffix}"] = (*size, width)
    return {**layers, "pool": (64,), "logits": (10,)}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("size", [None, (40, 24), (33, 21), (1, 1)])
def test_layers_in_forward_order(name, size):
    layers = entry(name).outline().layers(size)
    expected = expected_layers(BLOCKS[name], size or (32, 32))
    assert layers == expected
    assert list(layers) == list(expected)


@pytest.mark.parametrize(("name", "weighted"), [("cifar_resnet20", 20), ("cifar_resnet56", 56)])
def test_as_many_layers_with_weights_as_the_name_says(name, weighted):
    shapes = entry(name).architecture().shapes()
    assert sum(path.endswith("/kernel") for path in shapes) == weighted


@pytest.mark.thorough
def test_without_residuals_only_the_shortcuts_are_left():
    network = CifarResNet(blocks=2)
    params = jax.tree.map(jnp.zeros_like, network.random_params())
    params["conv1"] = network.random_params(1)["conv1"]
    out = network(params, np.random.default_rng(0).normal(size=(2, 9, 6, 3)).astype(np.float32))
    conv1 = np.asarray(out["conv1"])
    assert conv1.max() > 0
    for block in ("layer1_0", "layer1_1"):
        np.testing.assert_array_equal(out[block], conv1)
    # Option A: every other pixel, the new channels zero and half of them before the old ones.
    second = np.zeros((2, 5, 3, 32), np.float32)
    second[..., 8:24] = conv1[:, ::2, ::2]
    third = np.zeros((2, 3, 2, 64), np.float32)
    third[..., 16:48] = second[:, ::2, ::2]
    for stage, expected in (("layer2", second), ("layer3", third)):
        for i in range(2):
            np.testing.assert_array_equal(out[f"{stage}_{i}"], expected)
    np.testing.assert_allclose(out["pool"], third.mean((1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(out["logits"], 0)


@pytest.mark.thorough
def test_a_block_is_rectified_after_the_sum():
    network = CifarResNet(blocks=1)
    params = jax.tree.map(jnp.zeros_like, network.random_params())
    residual = np.arange(-4, 4, 0.5, np.float32)
    params["conv1"]["bias"] = jnp.full(16, 2.0)
    params["layer1_0"]["conv2"]["bias"] = jnp.asarray(residual)
    out = network(params, jnp.zeros((1, 4, 4, 3)))
    np.testing.assert_array_equal(out["layer1_0/conv1"], 0)
    np.testing.assert_array_equal(out["layer1_0/conv2"][0, 0, 0], residual)
    np.testing.assert_array_equal(out["layer1_0"][0, 0, 0], np.maximum(residual + 2, 0))


@pytest.mark.thorough
def test_taps_are_what_their_names_say():
    model = entry().random()
    acts = model(np.random.default_rng(0).uniform(size=(2, 40, 24, 3)).astype(np.float32))
    assert {name: a.shape[1:] for name, a in acts.items()} == model.layers((40, 24))
    for name, a in acts.items():
        assert a.dtype == jnp.float32
        assert np.isfinite(a).all()
        if name not in ("pool", "logits") and not name.endswith("/conv2"):
            assert a.min() == 0 < a.max()
    assert min(a.min() for name, a in acts.items() if name.endswith("/conv2")) < 0
    np.testing.assert_allclose(
        acts["layer1_2"],
        np.maximum(acts["layer1_2/conv2"] + acts["layer1_1"], 0),
        rtol=1e-5,
        atol=1e-5,
    )
    np.testing.assert_allclose(acts["pool"], acts["layer3_2"].mean((1, 2)), rtol=1e-5, atol=1e-6)


def published(blocks):
    """Tensors as in the publisher's files."""
    rng = np.random.default_rng(0)

    def normalised(conv, norm, inputs, outputs):
        kernel = rng.normal(size=(outputs, inputs, 3, 3))
        bias, mean = rng.normal(size=(2, outputs))
        weight, variance = rng.uniform(0.5, 2, size=(2, outputs))
        found = {
            f"{conv}.weight": kernel,
            f"{norm}.weight": weight,
            f"{norm}.bias": bias,
            f"{norm}.running_mean": mean,
            f"{norm}.running_var": variance,
        }
        return {f"module.{name}": array.astype(np.float32) for name, array in found.items()}

    tensors = normalised("conv1", "bn1", 3, 16)
    inputs = 16
    for stage, width in enumerate((16, 32, 64), 1):
        for i in range(blocks):
            block = f"layer{stage}.{i}"
            tensors |= normalised(f"{block}.conv1", f"{block}.bn1", inputs, width)
            tensors |= normalised(f"{block}.conv2", f"{block}.bn2", width, width)
            inputs = width
    linear = {"weight": rng.normal(size=(10, 64)), "bias": rng.normal(size=10)}
    return tensors | {
        f"module.linear.{part}": array.astype(np.float32) for part, array in linear.items()
    }


@pytest.mark.parametrize("name", BLOCKS)
def test_the_files_of_the_publisher(name, tmp_path):
    tensors = published(BLOCKS[name])
    file = tmp_path / "weights.npz"
    np.savez(file, **tensors)
    model = entry(name).load(file)
    assert model.labels == (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    found = model.params["layer2_0"]["conv1"]
    norm = {part: tensors[f"module.layer2.0.bn1.{part}"] for part in ("weight", "bias")}
    mean, variance = (tensors[f"module.layer2.0.bn1.running_{part}"] for part in ("mean", "var"))
    scale = norm["weight"] / np.sqrt(variance + 1e-5)
    kernel = tensors["module.layer2.0.conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_allclose(found["kernel"], kernel * scale, rtol=1e-5)
    np.testing.assert_allclose(found["bias"], norm["bias"] - mean * scale, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(
        model.params["logits"]["kernel"], tensors["module.linear.weight"].T
    )
    counted = sum(a.size for key, a in tensors.items() if "running" not in key)
    assert counted == entry(name).parameters


@pytest.mark.thorough
def test_images_are_normalised_as_in_the_training():
    model = entry().random()
    image = np.random.default_rng(0).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    prepared = (image - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    expected = CifarResNet(blocks=3)(model.params, prepared)["logits"]
    np.testing.assert_allclose(model(image)["logits"], expected, rtol=1e-4, atol=1e-4)


# ---- which part of a file was taken ---------------------------------------------------------


def two_networks(path, factor=2):
    """A network and its average, with the same names behind two prefixes."""
    plain = {name.removeprefix("module."): array for name, array in published(3).items()}
    averaged = {f"ema.{name}": np.float32(factor) * array for name, array in plain.items()}
    np.savez(path, **{f"model.{name}": array for name, array in plain.items()}, **averaged)


def test_the_part_is_recorded(tmp_path):
    path = tmp_path / "run.npz"
    two_networks(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    usual, named, averaged = (entry().load(f"{path}{part}") for part in ("", "#model", "#ema"))
    assert usual.origin == named.origin == "file run.npz#model"
    assert usual.digest == named.digest == digest
    assert averaged.origin == "file run.npz#ema"
    # Other weights of the same file: a replay takes no other.
    assert averaged.digest == f"{digest}#ema"
    np.testing.assert_allclose(
        averaged.params["logits"]["kernel"], 2 * usual.params["logits"]["kernel"]
    )
    with pytest.raises(CheckpointError, match="has no part other; it has: the file itself"):
        entry().load(f"{path}#other")


@pytest.mark.thorough
def test_a_picture_of_a_part_is_made_again(tmp_path):
    path = tmp_path / "run.npz"
    two_networks(path)
    averaged = entry().load(f"{path}#ema")
    result = fv.synthesize(averaged, "conv1:0", fv.Pixels((8, 8)), steps=2, transform="none")
    assert result.manifest["runs"][-1]["model"]["origin"] == "file run.npz#ema"
    again = fv.replay(result.manifest, model=entry().load(f"{path}#ema"), progress=False)
    np.testing.assert_array_equal(again.images, result.images)
    with pytest.raises(
        fv.InputError, match=r"run\.npz#ema\); this one has .* \(file run\.npz#model"
    ):
        fv.replay(result.manifest, model=entry().load(path), progress=False)


def test_a_file_is_opened_once(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    two_networks(path)
    opened = []
    original = os.open

    def count(file, *arguments, **options):
        opened.append(str(file))
        return original(file, *arguments, **options)

    monkeypatch.setattr(os, "open", count)
    entry().load(path)
    assert opened.count(str(path)) == 1
