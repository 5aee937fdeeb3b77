"""SqueezeNet 1.1 against PyTorch, written down from the paper with torchvision's names."""

import jax
import numpy as np
import pytest

from featvis import zoo
from featvis.errors import CheckpointError

torch = pytest.importorskip("torch")
nn = torch.nn

ENTRY = zoo.entries()["squeezenet1_1"]


class Fire(nn.Module):
    def __init__(self, inputs, squeezed, expanded):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x, name, out):
        out[f"{name}/squeeze1x1"] = x = self.squeeze(x).relu()
        out[f"{name}/expand1x1"] = self.expand1x1(x).relu()
        out[f"{name}/expand3x3"] = self.expand3x3(x).relu()
        return torch.cat([out[f"{name}/expand1x1"], out[f"{name}/expand3x3"]], 1)


class SqueezeNet(nn.Module):
    # Names of torchvision's 13 modules; of a ReLU there is nothing to compare.
    NAMES = (
        "conv1", None, "pool1", "fire2", "fire3", "pool3", "fire4", "fire5", "pool5",
        "fire6", "fire7", "fire8", "fire9",
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x):
        out = {}
        for name, module in zip(self.NAMES, self.features, strict=True):
            x = module(x, name, out) if isinstance(module, Fire) else module(x)
            out[name or "conv1"] = x
        out["conv10"] = x = self.classifier[:3](x)
        out["logits"] = self.classifier[3](x).flatten(1)
        return out


@pytest.fixture(scope="module")
def twin():
    torch.manual_seed(0)
    network = SqueezeNet().eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture
def tensors(twin):
    return {name: tensor.numpy() for name, tensor in twin.state_dict().items()}


@pytest.mark.parametrize("size", [(96, 96), (59, 86), (17, 18)])
def test_every_layer_agrees(size, twin, tensors):
    image = np.random.default_rng(0).uniform(size=(2, *size, 3)).astype(np.float32)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = twin(torch.from_numpy((image - mean) / std).permute(0, 3, 1, 2))
    architecture = ENTRY.architecture()
    params = architecture.params_from(tensors, ENTRY.layouts, "twin")
    found = jax.jit(architecture)(params, ENTRY.input.prepare(image))
    assert list(ENTRY.outline().layers()) == list(expected)
    for name, tensor in expected.items():
        array = tensor.movedim(1, -1).numpy()
        scale = np.abs(array).max()
        assert scale > 0, name
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize(
    ("name", "tensor", "lines"),
    [
        (
            "features.6.squeeze.bias",
            None,
            ["- features.6.squeeze.bias for fire4/squeeze1x1/bias (32,)"],
        ),
        ("features.13.weight", np.zeros(3), ["+ features.13.weight (3,)"]),
        (
            "classifier.1.weight",
            np.zeros((10, 512, 1, 1)),
            [
                "- classifier.1.weight for conv10/kernel (1, 1, 512, 1000)",
                "+ classifier.1.weight (10, 512, 1, 1)",
            ],
        ),
    ],
)
def test_another_file_is_refused(name, tensor, lines, tensors):
    tensors[name] = tensor
    if tensor is None:
        del tensors[name]
    with pytest.raises(CheckpointError, match=r"twin: \d differences .* torchvision") as caught:
        ENTRY.architecture().params_from(tensors, ENTRY.layouts, "twin")
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == lines


def test_published_facts():
    architecture = ENTRY.architecture()
    assert sum(map(np.prod, architecture.shapes().values())) == ENTRY.parameters
    least = ENTRY.input.min_size
    for side, fits in ((least, True), (least - 1, False)):
        image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
        layers = jax.eval_shape(architecture, architecture.outline(), image)
        assert all(0 not in layer.shape for layer in layers.values()) is fits
