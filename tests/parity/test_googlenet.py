"""GoogLeNet against a network in PyTorch with the structure and the names of torchvision's."""

import numpy as np
import pytest

from featvis import zoo
from featvis.errors import CheckpointError

torch = pytest.importorskip("torch")

from twins import activations, assert_layers_agree, randomise  # noqa: E402

# Inputs, and the arguments of torchvision's Inception in its order.
MODULES = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}
BRANCHES = {
    "1x1": ("branch1",),
    "3x3_bottleneck": ("branch2", 0),
    "3x3": ("branch2", 1),
    "5x5_bottleneck": ("branch3", 0),
    "5x5": ("branch3", 1),
    "pool_reduce": ("branch4", 1),
}


class Basic(torch.nn.Module):
    def __init__(self, inputs, outputs, kernel=1, stride=1, padding=0):
        super().__init__()
        self.conv = torch.nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = torch.nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


class Inception(torch.nn.Module):
    def __init__(self, inputs, one, three_in, three, five_in, five, pooled):
        super().__init__()
        self.branch1 = Basic(inputs, one)
        self.branch2 = torch.nn.Sequential(
            Basic(inputs, three_in), Basic(three_in, three, 3, padding=1)
        )
        self.branch3 = torch.nn.Sequential(
            Basic(inputs, five_in), Basic(five_in, five, 3, padding=1)
        )
        self.branch4 = torch.nn.Sequential(
            torch.nn.MaxPool2d(3, 1, 1, ceil_mode=True), Basic(inputs, pooled)
        )

    def forward(self, x):
        branches = self.branch1, self.branch2, self.branch3, self.branch4
        return torch.cat([branch(x) for branch in branches], 1)


class Auxiliary(torch.nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.conv = Basic(inputs, 128)
        self.fc1 = torch.nn.Linear(2048, 1024)
        self.fc2 = torch.nn.Linear(1024, 1000)


class GoogLeNet(torch.nn.Module):
    def __init__(self):
        super().__init__()

        def pool(window=3):
            return torch.nn.MaxPool2d(window, 2, ceil_mode=True)

        self.conv1 = Basic(3, 64, 7, 2, 3)
        self.maxpool1 = pool()
        self.conv2 = Basic(64, 64)
        self.conv3 = Basic(64, 192, 3, padding=1)
        self.maxpool2 = pool()
        for name, channels in MODULES.items():
            setattr(self, f"inception{name}", Inception(*channels))
            if name == "3b":
                self.maxpool3 = pool()
            if name == "4e":
                self.maxpool4 = pool(2)
        self.aux1, self.aux2 = Auxiliary(512), Auxiliary(528)
        self.avgpool = torch.nn.AdaptiveAvgPool2d((1, 1))
        self.fc = torch.nn.Linear(1024, 1000)

    def forward(self, image):
        # torchvision's preset, then its transform_input.
        mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        x = (image - mean) / std
        x = x * (std / 0.5) + (mean - 0.5) / 0.5
        for name, module in self.named_children():
            if name.startswith("aux"):
                continue
            x = module(x.flatten(1) if name == "fc" else x)
        return x

    def tapped(self):
        """The modules whose output is a layer, by its name."""
        layers = {
            "conv2d0": self.conv1,
            "maxpool0": self.maxpool1,
            "conv2d1": self.conv2,
            "conv2d2": self.conv3,
            "maxpool1": self.maxpool2,
        }
        for name in MODULES:
            module = getattr(self, f"inception{name}")
            for suffix, (branch, *index) in BRANCHES.items():
                step = getattr(module, branch)
                layers[f"mixed{name}/{suffix}"] = step[index[0]] if index else step
            layers[f"mixed{name}"] = module
            if name == "3b":
                layers["maxpool4"] = self.maxpool3
            if name == "4e":
                layers["maxpool10"] = self.maxpool4
        return layers | {"pool": self.avgpool, "logits": self.fc}


@pytest.fixture(scope="module")
def reference():
    network = GoogLeNet().eval()
    return randomise(network)


@pytest.fixture(scope="module")
def model(reference, tmp_path_factory):
    file = tmp_path_factory.mktemp("googlenet") / "googlenet.pth"
    torch.save(reference.state_dict(), file)
    return zoo.entries()["googlenet"].load(file)


@pytest.mark.parametrize("size", [(96, 96), (107, 131), (15, 16)])
def test_every_layer_agrees(size, model, reference):
    image = np.random.default_rng(0).uniform(size=(2, *size, 3)).astype(np.float32)
    expected = activations(reference, image)
    found = model(image)
    assert_layers_agree(found, expected)


def without(tensors):
    del tensors["inception4c.branch3.1.bn.running_var"]


def with_another(tensors):
    tensors["aux3.fc1.weight"] = np.zeros((2, 3), np.float32)


def misshapen(tensors):
    tensors["conv1.conv.weight"] = np.zeros((64, 3, 7, 5), np.float32)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (without, ["- inception4c.branch3.1.bn.running_var for mixed4c/5x5/running_var (64,)"]),
        (with_another, ["+ aux3.fc1.weight (2, 3)"]),
        (
            misshapen,
            [
                "- conv1.conv.weight for conv2d0/kernel (7, 7, 3, 64)",
                "+ conv1.conv.weight (64, 3, 7, 5)",
            ],
        ),
    ],
)
def test_differences_are_listed(change, lines, reference):
    entry = zoo.entries()["googlenet"]
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    change(tensors)
    with pytest.raises(CheckpointError) as error:
        entry.architecture().params_from(tensors, entry.layouts, "the file")
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == lines
