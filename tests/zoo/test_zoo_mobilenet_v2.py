import jax.numpy as jnp
import numpy as np
import pytest

from featvis import zoo
from featvis.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("quick_to_compile")

NAMES = ["mobilenet_v2", "mobilenet_v2_tf"]
# Expansion, outputs and stride of the 17 blocks.
BLOCKS = [
    (1, 16, 1),
    (6, 24, 2), (6, 24, 1),
    (6, 32, 2), (6, 32, 1), (6, 32, 1),
    (6, 64, 2), (6, 64, 1), (6, 64, 1), (6, 64, 1),
    (6, 96, 1), (6, 96, 1), (6, 96, 1),
    (6, 160, 2), (6, 160, 1), (6, 160, 1),
    (6, 320, 1),
]  # fmt: skip


@pytest.fixture(params=NAMES)
def entry(request):
    return zoo.entries()[request.param]


def expected_layers(size, classes):
    # Both paddings halve a side and round up.
    def half(size):
        return tuple(-(-side // 2) for side in size)

    size, inputs = half(size), 32
    shapes = {"stem": (*size, 32)}
    for i, (expansion, outputs, stride) in enumerate(BLOCKS):
        hidden = inputs * expansion
        if expansion > 1:
            shapes[f"block{i}/expand"] = (*size, hidden)
        size = half(size) if stride == 2 else size
        shapes[f"block{i}/depthwise"] = (*size, hidden)
        shapes[f"block{i}/project"] = (*size, outputs)
        shapes[f"block{i}"] = (*size, outputs)
        inputs = outputs
    return shapes | {"head": (*size, 1280), "pool": (1280,), "logits": (classes,)}


@pytest.mark.parametrize("size", [(224, 224), (97, 130), (1, 1)])
def test_layers(size, entry):
    found = entry.outline().layers(size)
    expected = expected_layers(size, 1001 if entry.name.endswith("tf") else 1000)
    assert list(found.items()) == list(expected.items())


@pytest.mark.thorough
def test_the_paddings_differ_at_an_even_size_and_not_at_an_odd_one():
    rng = np.random.default_rng(1)
    stems = [zoo.entries()[name].architecture().build().stem for name in NAMES]
    kernel = rng.normal(size=stems[0].kernel.shape).astype(np.float32)
    for stem in stems:
        stem.kernel[...] = kernel
    for side, same in ((8, False), (9, True)):
        image = np.random.default_rng(0).uniform(size=(1, side, side, 3)).astype(np.float32)
        either, other = (stem(image) for stem in stems)
        assert bool(jnp.allclose(either, other)) is same


@pytest.mark.thorough
def test_a_block_adds_its_input_where_shapes_allow_it(entry):
    image = np.random.default_rng(0).uniform(size=(1, 32, 32, 3)).astype(np.float32)
    found = entry.random()(image)
    inputs = "stem"
    for i, (_, outputs, stride) in enumerate(BLOCKS):
        block = found[f"block{i}"]
        adds = stride == 1 and found[inputs].shape[-1] == outputs
        total = found[f"block{i}/project"] + (found[inputs] if adds else 0)
        np.testing.assert_allclose(block, total, rtol=1e-5, atol=1e-5)
        inputs = f"block{i}"


def test_each_prepares_its_own_input():
    black_and_white = jnp.array([0.0, 1.0])[:, None, None, None] * jnp.ones((2, 1, 1, 3))
    torchvision, tensorflow = (zoo.entries()[name].input for name in NAMES)
    np.testing.assert_allclose(
        torchvision.prepare(black_and_white)[:, 0, 0],
        [[-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.64]],
        atol=1e-4,
    )
    np.testing.assert_array_equal(
        tensorflow.prepare(black_and_white)[:, 0, 0], [[-1, -1, -1], [1, 1, 1]]
    )


def test_labels():
    torchvision, tensorflow = (zoo.entries()[name].labels(None) for name in NAMES)
    assert torchvision[:2] == ("tench", "goldfish")
    assert tensorflow == ("background", *torchvision)


def tflite_tensors():
    """A file of TensorFlow Lite's tensors in which every number tells where it comes from."""
    tensors = {}
    convolutions = [("conv_2d", (32, 3, 3, 3), 2)]
    inputs = 32
    for expansion, outputs, stride in BLOCKS:
        hidden = inputs * expansion
        if expansion > 1:
            convolutions.append(("conv_2d", (hidden, 1, 1, inputs), 1))
        convolutions.append(("depthwise_conv_2d", (1, 3, 3, hidden), stride))
        convolutions.append(("conv_2d", (outputs, 1, 1, hidden), 1))
        inputs = outputs
    convolutions += [("conv_2d", (1280, 1, 1, 320), 1), ("conv_2d", (1001, 1, 1, 1280), 1)]
    for i, (kind, shape, stride) in enumerate(convolutions):
        name = f"{i:02}_{kind}"
        tensors[f"{name}/kernel"] = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        outputs = shape[-1] if kind.startswith("depthwise") else shape[0]
        tensors[f"{name}/bias"] = np.full(outputs, i, np.float32)
        tensors[f"{name}/stride"] = np.array(stride, np.int32)
    return tensors


@pytest.fixture(scope="module")
def tflite():
    return tflite_tensors()


def test_tensors_of_tensorflow_lite(tflite, tmp_path):
    np.savez(tmp_path / "weights.npz", **tflite)
    params = zoo.entries()["mobilenet_v2_tf"].load(tmp_path / "weights.npz").params
    kernel = tflite["00_conv_2d/kernel"]
    assert params["stem"]["kernel"][2, 1, 0, 31] == kernel[31, 2, 1, 0]
    kernel = tflite["01_depthwise_conv_2d/kernel"]
    assert params["block0"]["depthwise"]["kernel"][2, 1, 0, 31] == kernel[0, 2, 1, 31]
    kernel = tflite["52_conv_2d/kernel"]
    assert params["logits"]["kernel"][1279, 1000] == kernel[1000, 0, 0, 1279]
    numbers = {"stem": 0, "head": 51, "logits": 52}
    assert {name: params[name]["bias"][0] for name in numbers} == numbers
    assert params["block0"]["project"]["bias"][0] == 2
    assert params["block16"]["expand"]["bias"][0] == 48


def changed(tensors, change):
    """The lines of the error that `params_from` raises for tensors changed in one place."""
    tensors = dict(tensors)
    change(tensors)
    entry = zoo.entries()["mobilenet_v2_tf"]
    with pytest.raises(CheckpointError) as error:
        entry.architecture().params_from(tensors, entry.layouts, "file")
    head, *lines = str(error.value).splitlines()
    assert "layout of TensorFlow Lite" in head
    return [line.strip() for line in lines]


def test_what_differs_is_listed(tflite):
    assert changed(tflite, lambda t: t.pop("02_conv_2d/bias")) == [
        "- 02_conv_2d/bias for block0/project/bias (16,)"
    ]
    assert changed(tflite, lambda t: t.update({"53_conv_2d/kernel": np.zeros(3)})) == [
        "+ 53_conv_2d/kernel (3,)"
    ]
    assert changed(tflite, lambda t: t.update({"52_conv_2d/kernel": np.zeros(3)})) == [
        "- 52_conv_2d/kernel for logits/kernel (1280, 1001)",
        "+ 52_conv_2d/kernel (3,)",
    ]
