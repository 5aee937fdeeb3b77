"""The generator of DGN-AM against PyTorch, at a 64th of its width."""

import jax
import numpy as np
import pytest

from featvis.generators.networks.dgn_am import Deconvolutional, dgn_am

torch = pytest.importorskip("torch")

DIVIDED = 64
UP = (
    ("deconv5", 256, 4), ("conv5_1", 512, 3), ("deconv4", 256, 4), ("conv4_1", 256, 3),
    ("deconv3", 128, 4), ("conv3_1", 128, 3), ("deconv2", 64, 4), ("deconv1", 32, 4),
    ("deconv0", 3, 4),
)  # fmt: skip


class Twin(torch.nn.Module):
    """Caffe's layers: what is called conv5_1 is a transposed convolution too."""

    def __init__(self, code, dense):
        super().__init__()
        widths = [code, dense, dense, 256 // DIVIDED * 16]
        for name, *shape in zip(("defc7", "defc6", "defc5"), widths, widths[1:], strict=False):
            setattr(self, name, torch.nn.Linear(*shape))
        inputs = 256 // DIVIDED
        for name, outputs, side in UP:
            outputs = 3 if outputs == 3 else max(1, outputs // DIVIDED)
            layer = torch.nn.ConvTranspose2d(inputs, outputs, side, 2 if side == 4 else 1, 1)
            setattr(self, name, layer)
            inputs = outputs

    def forward(self, x):
        bend = torch.nn.functional.leaky_relu
        for name in ("defc7", "defc6", "defc5"):
            x = bend(getattr(self, name)(x), 0.3)
        x = x.reshape(1, -1, 4, 4)
        for name, *_ in UP:
            x = getattr(self, name)(x)
            x = x if name == "deconv0" else bend(x, 0.3)
        x = x[0, :, 14:241, 14:241].flip(0).movedim(0, -1)
        return (x + torch.tensor([123.0, 117.0, 104.0])) / 255


def test_the_image_agrees():
    torch.manual_seed(0)
    twin = Twin(12, 10)
    for parameter in twin.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours = Deconvolutional(code=12, dense=10, divided=DIVIDED)
    tensors = {name: tensor.numpy() for name, tensor in twin.state_dict().items()}
    params = ours.params_from(tensors, dgn_am.decoder.layouts, "twin")
    code = np.random.default_rng(0).standard_normal((1, 12), np.float32)
    with torch.no_grad():
        wanted = twin(torch.from_numpy(code)).numpy()
    found = np.asarray(jax.jit(ours)(params, code))[0]
    assert found.shape == (227, 227, 3)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_the_whole_has_the_published_shapes():
    shapes = Deconvolutional().shapes()
    assert shapes["defc7/kernel"] == shapes["defc6/kernel"] == (4096, 4096)
    assert shapes["deconv5/kernel"] == (4, 4, 256, 256)
    assert shapes["conv5_1/kernel"] == (3, 3, 256, 512)
    assert shapes["deconv0/kernel"] == (4, 4, 32, 3)
