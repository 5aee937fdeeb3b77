"""The ResNets for CIFAR-10 against a network in PyTorch with the publisher's names."""

import numpy as np
import pytest

from featvis import zoo
from featvis.errors import CheckpointError

torch = pytest.importorskip("torch")

from twins import assert_layers_agree, randomise  # noqa: E402

BLOCKS = {"cifar_resnet20": 3, "cifar_resnet56": 9}


def conv(inputs, outputs, stride=1):
    return torch.nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


class Block(torch.nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, stride), torch.nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs), torch.nn.BatchNorm2d(outputs)

    def forward(self, x, name, out):
        out[f"{name}/conv1"] = y = torch.relu(self.bn1(self.conv1(x)))
        out[f"{name}/conv2"] = y = self.bn2(self.conv2(y))
        if x.shape != y.shape:
            # Every other pixel, between a quarter of the channels of zeros before and after.
            shortcut = torch.zeros_like(y)
            quarter = y.shape[1] // 4
            shortcut[:, quarter:-quarter] = x[:, :, ::2, ::2]
            x = shortcut
        out[name] = torch.relu(x + y)
        return out[name]


class ResNet(torch.nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16), torch.nn.BatchNorm2d(16)
        for stage, (inputs, outputs) in enumerate([(16, 16), (16, 32), (32, 64)], 1):
            first = Block(inputs, outputs, 1 if stage == 1 else 2)
            rest = [Block(outputs, outputs, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage}", torch.nn.Sequential(first, *rest))
        self.linear = torch.nn.Linear(64, 10)

    def forward(self, image):
        mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        out = {}
        out["conv1"] = x = torch.relu(self.bn1(self.conv1((image - mean) / std)))
        for stage in (1, 2, 3):
            for i, block in enumerate(getattr(self, f"layer{stage}")):
                x = block(x, f"layer{stage}_{i}", out)
        # The publisher averages over a square as wide as the image, which is all of a square one.
        out["pool"] = x = x.mean((2, 3))
        out["logits"] = self.linear(x)
        return out


@pytest.fixture(scope="module", params=list(BLOCKS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def reference(name):
    network = ResNet(BLOCKS[name]).eval()
    return randomise(network)


def state(network):
    """Named as in the files, which were saved by a torch that did not count batches."""
    return {
        f"module.{name}": tensor
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


@pytest.fixture(scope="module")
def model(name, reference, tmp_path_factory):
    file = tmp_path_factory.mktemp(name) / "weights.th"
    content = {"best_prec1": 91.5, "state_dict": state(reference)}
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return zoo.entries()[name].load(file)


@pytest.mark.parametrize("size", [(32, 32), (41, 26)])
def test_every_layer_agrees(size, model, reference):
    image = np.random.default_rng(0).uniform(size=(2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = reference(torch.from_numpy(image).movedim(-1, 1))
    found = model(image)
    assert_layers_agree(found, expected)


def test_as_many_parameters_as_published(reference, name):
    assert sum(p.numel() for p in reference.parameters()) == zoo.entries()[name].parameters


def without(tensors):
    del tensors["module.layer3.1.bn2.running_mean"]


def with_another(tensors):
    tensors["module.layer2.0.shortcut.0.weight"] = np.zeros((32, 16, 1, 1), np.float32)


def misshapen(tensors):
    tensors["module.linear.weight"] = np.zeros((100, 64), np.float32)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (without, ["- layer3.1.bn2.running_mean for layer3_1/conv2/running_mean (64,)"]),
        (with_another, ["+ layer2.0.shortcut.0.weight (32, 16, 1, 1)"]),
        (
            misshapen,
            [
                "- linear.weight for logits/kernel (64, 10)",
                "+ linear.weight (100, 64)",
            ],
        ),
    ],
)
def test_differences_are_listed(change, lines):
    tensors = {name: tensor.numpy() for name, tensor in state(ResNet(3)).items()}
    change(tensors)
    entry = zoo.entries()["cifar_resnet20"]
    with pytest.raises(CheckpointError) as error:
        entry.architecture().params_from(tensors, entry.layouts, "the file")
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == lines
