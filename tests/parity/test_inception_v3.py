"""InceptionV3 against a network in PyTorch with the structure and the names of torchvision's."""

import numpy as np
import pytest

from featvis import zoo
from featvis.errors import CheckpointError

torch = pytest.importorskip("torch")

from twins import activations, assert_layers_agree, randomise  # noqa: E402


class Basic(torch.nn.Module):
    def __init__(self, inputs, outputs, kernel=1, stride=1, padding=0):
        super().__init__()
        self.conv = torch.nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = torch.nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


def average(x):
    return torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)


def row(inputs, outputs, width=7):
    return Basic(inputs, outputs, (1, width), padding=(0, width // 2))


def column(inputs, outputs, height=7):
    return Basic(inputs, outputs, (height, 1), padding=(height // 2, 0))


class InceptionA(torch.nn.Module):
    def __init__(self, inputs, pooled):
        super().__init__()
        self.branch1x1 = Basic(inputs, 64)
        self.branch5x5_1 = Basic(inputs, 48)
        self.branch5x5_2 = Basic(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Basic(inputs, 64)
        self.branch3x3dbl_2 = Basic(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Basic(96, 96, 3, padding=1)
        self.branch_pool = Basic(inputs, pooled)

    def forward(self, x):
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(average(x))], 1)


class InceptionB(torch.nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.branch3x3 = Basic(inputs, 384, 3, 2)
        self.branch3x3dbl_1 = Basic(inputs, 64)
        self.branch3x3dbl_2 = Basic(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Basic(96, 96, 3, 2)
        self.branch_pool = torch.nn.MaxPool2d(3, 2)

    def forward(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, self.branch_pool(x)], 1)


class InceptionC(torch.nn.Module):
    def __init__(self, inputs, hidden):
        super().__init__()
        self.branch1x1 = Basic(inputs, 192)
        self.branch7x7_1 = Basic(inputs, hidden)
        self.branch7x7_2 = row(hidden, hidden)
        self.branch7x7_3 = column(hidden, 192)
        self.branch7x7dbl_1 = Basic(inputs, hidden)
        self.branch7x7dbl_2 = column(hidden, hidden)
        self.branch7x7dbl_3 = row(hidden, hidden)
        self.branch7x7dbl_4 = column(hidden, hidden)
        self.branch7x7dbl_5 = row(hidden, 192)
        self.branch_pool = Basic(inputs, 192)

    def forward(self, x):
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], 1)


class InceptionD(torch.nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.branch3x3_1 = Basic(inputs, 192)
        self.branch3x3_2 = Basic(192, 320, 3, 2)
        self.branch7x7x3_1 = Basic(inputs, 192)
        self.branch7x7x3_2 = row(192, 192)
        self.branch7x7x3_3 = column(192, 192)
        self.branch7x7x3_4 = Basic(192, 192, 3, 2)
        self.branch_pool = torch.nn.MaxPool2d(3, 2)

    def forward(self, x):
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), self.branch_pool(x)], 1)


class InceptionE(torch.nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.branch1x1 = Basic(inputs, 320)
        self.branch3x3_1 = Basic(inputs, 384)
        self.branch3x3_2a = row(384, 384, 3)
        self.branch3x3_2b = column(384, 384, 3)
        self.branch3x3dbl_1 = Basic(inputs, 448)
        self.branch3x3dbl_2 = Basic(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = row(384, 384, 3)
        self.branch3x3dbl_3b = column(384, 384, 3)
        self.branch_pool = Basic(inputs, 192)

    def forward(self, x):
        one, three = self.branch1x1(x), self.branch3x3_1(x)
        three = torch.cat([self.branch3x3_2a(three), self.branch3x3_2b(three)], 1)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        double = torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1)
        return torch.cat([one, three, double, self.branch_pool(average(x))], 1)


class Auxiliary(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0 = Basic(768, 128)
        self.conv1 = Basic(128, 768, 5)
        self.fc = torch.nn.Linear(768, 1000)


class InceptionV3(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = Basic(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Basic(32, 32, 3)
        self.Conv2d_2b_3x3 = Basic(32, 64, 3, padding=1)
        self.MaxPool_3a_3x3 = torch.nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = Basic(64, 80)
        self.Conv2d_4a_3x3 = Basic(80, 192, 3)
        self.MaxPool_5a_3x3 = torch.nn.MaxPool2d(3, 2)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.AuxLogits = Auxiliary()
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.pool = torch.nn.AdaptiveAvgPool2d((1, 1))
        self.fc = torch.nn.Linear(2048, 1000)

    def forward(self, image):
        # torchvision's preset, then its transform_input.
        mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        x = (image - mean) / std
        x = x * (std / 0.5) + (mean - 0.5) / 0.5
        for name, module in self.named_children():
            if name != "AuxLogits":
                x = module(x.flatten(1) if name == "fc" else x)
        return x

    def tapped(self):
        """The modules whose output is a layer, by its name."""
        layers = {}
        for name, module in self.named_children():
            if name.startswith("Mixed"):
                layers |= {f"{name}/{key}": branch for key, branch in module.named_children()}
            if name != "AuxLogits":
                layers["logits" if name == "fc" else name] = module
        return layers


@pytest.fixture(scope="module")
def reference():
    network = InceptionV3().eval()
    return randomise(network)


@pytest.fixture(scope="module")
def model(reference, tmp_path_factory):
    file = tmp_path_factory.mktemp("inception") / "inception_v3.pth"
    torch.save(reference.state_dict(), file)
    return zoo.entries()["inception_v3"].load(file)


@pytest.mark.parametrize("size", [(107, 139), (96, 75)])
def test_every_layer_agrees(size, model, reference):
    image = np.random.default_rng(0).uniform(size=(2, *size, 3)).astype(np.float32)
    expected = activations(reference, image)
    found = model(image)
    assert_layers_agree(found, expected)


def without(tensors):
    del tensors["Mixed_6c.branch7x7dbl_4.conv.weight"]


def with_another(tensors):
    tensors["AuxLogits.conv2.conv.weight"] = np.zeros((2, 3), np.float32)


def misshapen(tensors):
    # As large as it must be, on its side.
    tensors["Mixed_7b.branch3x3_2a.conv.weight"] = np.zeros((384, 384, 3, 1), np.float32)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (
            without,
            [
                "- Mixed_6c.branch7x7dbl_4.conv.weight "
                "for Mixed_6c/branch7x7dbl_4/kernel (7, 1, 160, 160)"
            ],
        ),
        (with_another, ["+ AuxLogits.conv2.conv.weight (2, 3)"]),
        (
            misshapen,
            [
                "- Mixed_7b.branch3x3_2a.conv.weight "
                "for Mixed_7b/branch3x3_2a/kernel (1, 3, 384, 384)",
                "+ Mixed_7b.branch3x3_2a.conv.weight (384, 384, 3, 1)",
            ],
        ),
    ],
)
def test_differences_are_listed(change, lines, reference):
    entry = zoo.entries()["inception_v3"]
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    change(tensors)
    with pytest.raises(CheckpointError) as error:
        entry.architecture().params_from(tensors, entry.layouts, "the file")
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == lines
