"""AlexNet and CaffeNet against PyTorch, with torchvision's and with Caffe's names."""

import jax
import numpy as np
import pytest

from featvis import zoo
from featvis.errors import CheckpointError

torch = pytest.importorskip("torch")

from twins import assert_published_facts  # noqa: E402

nn = torch.nn


class AlexNet(nn.Module):
    # Names of torchvision's 13 modules.
    NAMES = (
        "conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "conv3", "relu3", "conv4", "relu4",
        "conv5", "relu5", "pool5",
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
            nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000),
        )  # fmt: skip

    def forward(self, image):
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = ((image - mean) / std).permute(0, 3, 1, 2)
        out = {}
        for name, module in zip(self.NAMES, self.features, strict=True):
            out[name] = x = module(x)
        x = self.avgpool(x).flatten(1)
        names = (None, "fc6", "relu6", None, "fc7", "relu7", "logits")
        for name, module in zip(names, self.classifier, strict=True):
            out[name] = x = module(x)
        del out[None]
        return out


class CaffeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, 4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6 = nn.Linear(9216, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, 1000)

    def forward(self, image):
        functional = torch.nn.functional
        x = (255 * image).flip(-1) - torch.tensor([104.0, 117.0, 123.0])
        x, out = x.permute(0, 3, 1, 2), {}
        for i in range(1, 6):
            out[f"conv{i}"] = x = getattr(self, f"conv{i}")(x)
            out[f"relu{i}"] = x = x.relu()
            if i in (1, 2, 5):
                out[f"pool{i}"] = x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
            if i in (1, 2):
                out[f"norm{i}"] = x = functional.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
        x = functional.adaptive_avg_pool2d(x, 6).flatten(1)
        for i in (6, 7):
            out[f"fc{i}"] = x = getattr(self, f"fc{i}")(x)
            out[f"relu{i}"] = x = x.relu()
        out["logits"] = self.fc8(x)
        return out


@pytest.fixture(scope="module", params=[AlexNet, CaffeNet])
def pair(request):
    """Our entry, the twin, our weights from those of the twin."""
    torch.manual_seed(0)
    twin = request.param().eval()
    for parameter in twin.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.normal_(parameter, std=0.1)
    entry = zoo.entries()[request.param.__name__.lower()]
    tensors = {name: tensor.numpy() for name, tensor in twin.state_dict().items()}
    return entry, twin, entry.architecture().params_from(tensors, entry.layouts, "twin")


# Of the native size, odd and not square, with a pool5 of more than 6 columns.
@pytest.mark.parametrize("size", [None, (79, 134), (67, 265)])
def test_every_layer_agrees(size, pair):
    entry, twin, params = pair
    shape = (1, *(size or entry.input.size), 3)
    image = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    with torch.no_grad():
        expected = twin(torch.from_numpy(image))
    # A normalisation that did nothing would agree with any.
    for norm in {"norm1", "norm2"} & set(expected):
        assert (expected[norm] < 0.5 * expected[norm.replace("norm", "pool")]).any()
    found = jax.jit(entry.architecture())(params, entry.input.prepare(image))
    assert list(entry.outline().layers()) == list(expected)
    for name, tensor in expected.items():
        array = tensor.movedim(1, -1).numpy()
        scale = np.abs(array).max()
        assert scale > 0, name
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize(
    ("network", "name", "shape", "lines"),
    [
        (AlexNet, "features.8.bias", None, ["- features.8.bias for conv4/bias (256,)"]),
        (AlexNet, "features.1.bias", (64,), ["+ features.1.bias (64,)"]),
        (CaffeNet, "fc8.weight", None, ["- fc8.weight for logits/kernel (4096, 1000)"]),
        (CaffeNet, "norm1.weight", (5,), ["+ norm1.weight (5,)"]),
        (
            # CaffeNet in one tower.
            CaffeNet,
            "conv2.weight",
            (256, 96, 5, 5),
            [
                "- conv2.weight for conv2/kernel (5, 5, 48, 256)",
                "+ conv2.weight (256, 96, 5, 5)",
            ],
        ),
    ],
)
def test_another_file_is_refused(network, name, shape, lines):
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in network().state_dict().items()}
    shapes[name] = shape
    zero = np.float32(0)
    tensors = {name: np.broadcast_to(zero, size) for name, size in shapes.items() if size}
    entry = zoo.entries()[network.__name__.lower()]
    with pytest.raises(CheckpointError, match=r"twin: \d differences") as caught:
        entry.architecture().params_from(tensors, entry.layouts, "twin")
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == lines


@pytest.mark.parametrize("name", ["alexnet", "caffenet"])
def test_published_facts(name):
    assert_published_facts(name)
