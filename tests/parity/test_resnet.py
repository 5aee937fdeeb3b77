"""ResNet against torchvision's structure and names in PyTorch, and against transformers."""

import numpy as np
import pytest

from featvis import zoo
from featvis.errors import CheckpointError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from twins import assert_layers_agree, randomise  # noqa: E402

SIZES = [(64, 64), (75, 101)]
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def conv(inputs, outputs, kernel, stride=1):
    return torch.nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)


class Block(torch.nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        if stride != 1 or inputs != outputs:
            self.downsample = torch.nn.Sequential(
                conv(inputs, outputs, 1, stride), torch.nn.BatchNorm2d(outputs)
            )


class Basic(Block):
    expansion = 1

    def __init__(self, inputs, width, stride):
        super().__init__(inputs, width, stride)
        self.conv1, self.bn1 = conv(inputs, width, 3, stride), torch.nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), torch.nn.BatchNorm2d(width)

    def forward(self, x, name, out):
        out[f"{name}/conv1"] = y = torch.relu(self.bn1(self.conv1(x)))
        out[f"{name}/conv2"] = y = self.bn2(self.conv2(y))
        if hasattr(self, "downsample"):
            out[f"{name}/downsample"] = x = self.downsample(x)
        out[name] = torch.relu(x + y)
        return out[name]


class Bottleneck(Block):
    expansion = 4

    def __init__(self, inputs, width, stride):
        super().__init__(inputs, 4 * width, stride)
        self.conv1, self.bn1 = conv(inputs, width, 1), torch.nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), torch.nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), torch.nn.BatchNorm2d(4 * width)

    def forward(self, x, name, out):
        out[f"{name}/conv1"] = y = torch.relu(self.bn1(self.conv1(x)))
        out[f"{name}/conv2"] = y = torch.relu(self.bn2(self.conv2(y)))
        out[f"{name}/conv3"] = y = self.bn3(self.conv3(y))
        if hasattr(self, "downsample"):
            out[f"{name}/downsample"] = x = self.downsample(x)
        out[name] = torch.relu(x + y)
        return out[name]


class ResNet(torch.nn.Module):
    """torchvision's, with the names of its parameters."""

    def __init__(self, block, depths):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 7, 2), torch.nn.BatchNorm2d(64)
        self.maxpool = torch.nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, (width, depth) in enumerate(zip((64, 128, 256, 512), depths, strict=True), 1):
            blocks = []
            for i in range(depth):
                blocks.append(block(inputs, width, 2 if stage > 1 and i == 0 else 1))
                inputs = width * block.expansion
            setattr(self, f"layer{stage}", torch.nn.Sequential(*blocks))
        self.avgpool = torch.nn.AdaptiveAvgPool2d(1)
        self.fc = torch.nn.Linear(inputs, 1000)

    def forward(self, x):
        out = {}
        out["conv1"] = x = torch.relu(self.bn1(self.conv1(x)))
        out["pool1"] = x = self.maxpool(x)
        for stage in range(1, 5):
            for i, block in enumerate(getattr(self, f"layer{stage}")):
                x = block(x, f"layer{stage}_{i}", out)
        out["pool"] = x = self.avgpool(x).flatten(1)
        out["logits"] = self.fc(x)
        return out


def as_torchvision(name):
    network = ResNet(Basic if name == "resnet18" else Bottleneck, DEPTHS[name])
    return network, network


def as_transformers(name):
    small = name == "resnet18"
    config = transformers.ResNetConfig(
        layer_type="basic" if small else "bottleneck",
        hidden_sizes=[(64 if small else 256) << i for i in range(4)],
        depths=list(DEPTHS[name]),
        num_labels=1000,
    )
    network = transformers.ResNetForImageClassification(config)
    tapped = {"conv1": network.resnet.embedder.embedder, "pool1": network.resnet.embedder.pooler}
    for i, stage in enumerate(network.resnet.encoder.stages, 1):
        for j, block in enumerate(stage.layers):
            for k, layer in enumerate(block.layer, 1):
                tapped[f"layer{i}_{j}/conv{k}"] = layer
            if not isinstance(block.shortcut, torch.nn.Identity):
                tapped[f"layer{i}_{j}/downsample"] = block.shortcut
            tapped[f"layer{i}_{j}"] = block
    tapped |= {"pool": network.resnet.pooler, "logits": network.classifier}
    found = {}

    def keep(name):
        def hook(module, inputs, output):
            found[name] = output.clone()  # the sum is written over the last convolution

        return hook

    for layer, module in tapped.items():
        module.register_forward_hook(keep(layer))

    def run(x):
        network(x)
        return {**found, "pool": found["pool"].flatten(1)}

    return network, run


@pytest.fixture(scope="module", params=["resnet18", "resnet50"])
def name(request):
    return request.param


@pytest.fixture(scope="module", params=[as_torchvision, as_transformers])
def published(request, name):
    # Without storage at first: filling it twice would take most of the time.
    with torch.device("meta"):
        network, run = request.param(name)
    network.to_empty(device="cpu")
    return randomise(network).eval(), run


@pytest.fixture(scope="module")
def model(published, name, tmp_path_factory):
    network, _ = published
    file = tmp_path_factory.mktemp(name) / "weights.safetensors"
    save = pytest.importorskip("safetensors.torch").save_file
    save(network.state_dict(), file)
    return zoo.entries()[name].load(file)


@pytest.mark.parametrize("size", SIZES)
def test_every_layer_agrees(size, model, published):
    image = np.random.default_rng(0).uniform(size=(2, *size, 3)).astype(np.float32)
    prepared = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    _, run = published
    with torch.no_grad():
        expected = run(torch.from_numpy(np.float32(prepared)).movedim(-1, 1))
    found = model(image)
    assert_layers_agree(found, expected)


def test_as_many_parameters_as_published(published, name):
    network, _ = published
    assert sum(p.numel() for p in network.parameters()) == zoo.entries()[name].parameters


def without(tensors):
    del tensors["layer2.0.downsample.1.running_var"]


def with_another(tensors):
    tensors["layer1.0.conv3.weight"] = np.zeros((2, 3), np.float32)


def misshapen(tensors):
    tensors["conv1.weight"] = np.zeros((64, 3, 7, 5), np.float32)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (
            without,
            ["- layer2.0.downsample.1.running_var for layer2_0/downsample/running_var (128,)"],
        ),
        (with_another, ["+ layer1.0.conv3.weight (2, 3)"]),
        (
            misshapen,
            ["- conv1.weight for conv1/kernel (7, 7, 3, 64)", "+ conv1.weight (64, 3, 7, 5)"],
        ),
    ],
)
def test_differences_are_listed(change, lines):
    network, _ = as_torchvision("resnet18")
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    change(tensors)
    entry = zoo.entries()["resnet18"]
    with pytest.raises(CheckpointError) as error:
        entry.architecture().params_from(tensors, entry.layouts, "the file")
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == lines
