"""MobileNetV2 against PyTorch networks with torchvision's and timm's names, and transformers'."""

import numpy as np
import pytest

from featvis import zoo
from featvis.errors import CheckpointError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from twins import assert_layers_agree, randomise  # noqa: E402

SIZES = [(96, 96), (75, 101)]
# Inputs, outputs and stride of the blocks after the first.
BLOCKS = [
    (16, 24, 2), (24, 24, 1),
    (24, 32, 2), (32, 32, 1), (32, 32, 1),
    (32, 64, 2), (64, 64, 1), (64, 64, 1), (64, 64, 1),
    (64, 96, 1), (96, 96, 1), (96, 96, 1),
    (96, 160, 2), (160, 160, 1), (160, 160, 1),
    (160, 320, 1),
]  # fmt: skip


def conv(inputs, outputs, kernel, stride=1, groups=1):
    return torch.nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


def rectified(inputs, outputs, kernel, stride=1, groups=1):
    return torch.nn.Sequential(
        conv(inputs, outputs, kernel, stride, groups),
        torch.nn.BatchNorm2d(outputs),
        torch.nn.ReLU6(),
    )


class TorchvisionBlock(torch.nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        expand = [rectified(inputs, hidden, 1)] if expansion > 1 else []
        self.conv = torch.nn.Sequential(
            *expand,
            rectified(hidden, hidden, 3, stride, hidden),
            conv(hidden, outputs, 1),
            torch.nn.BatchNorm2d(outputs),
        )
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.skips else self.conv(x)


class Torchvision(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(
            rectified(3, 32, 3, 2),
            TorchvisionBlock(32, 16, 1, 1),
            *(TorchvisionBlock(*block, 6) for block in BLOCKS),
            rectified(320, 1280, 1),
        )
        self.classifier = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(1280, 1000))
        self.pool = torch.nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))

    def taps(self):
        stem, *blocks, head = self.features
        taps = {"stem": stem}
        for i, block in enumerate(blocks):
            *parts, _, project = block.conv
            for name, part in zip(["expand", "depthwise"][-len(parts) :], parts, strict=True):
                taps[f"block{i}/{name}"] = part
            taps |= {f"block{i}/project": project, f"block{i}": block}
        return taps | {"head": head, "pool": self.pool, "logits": self.classifier}


def normalised(channels, rectify=True):
    """As timm's BatchNormAct2d: the activation is within."""
    norm = torch.nn.BatchNorm2d(channels)
    if rectify:
        norm.register_forward_hook(lambda module, inputs, x: x.clamp(0, 6))
    return norm


class TimmSeparable(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv_dw, self.bn1 = conv(inputs, inputs, 3, 1, inputs), normalised(inputs)
        self.conv_pw, self.bn2 = conv(inputs, outputs, 1), normalised(outputs, rectify=False)

    def forward(self, x):
        return self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))


class TimmInverted(torch.nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        hidden = 6 * inputs
        self.conv_pw, self.bn1 = conv(inputs, hidden, 1), normalised(hidden)
        self.conv_dw, self.bn2 = conv(hidden, hidden, 3, stride, hidden), normalised(hidden)
        self.conv_pwl, self.bn3 = conv(hidden, outputs, 1), normalised(outputs, rectify=False)
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x):
        y = self.bn1(self.conv_pw(x))
        y = self.bn3(self.conv_pwl(self.bn2(self.conv_dw(y))))
        return x + y if self.skips else y


class Timm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_stem, self.bn1 = conv(3, 32, 3, 2), normalised(32)
        blocks = [TimmSeparable(32, 16), *(TimmInverted(*block) for block in BLOCKS)]
        stages = []
        for count in (1, 2, 3, 4, 3, 3, 1):
            stages.append(torch.nn.Sequential(*blocks[:count]))
            del blocks[:count]
        self.blocks = torch.nn.Sequential(*stages)
        self.conv_head, self.bn2 = conv(320, 1280, 1), normalised(1280)
        self.global_pool = torch.nn.AdaptiveAvgPool2d(1)
        self.classifier = torch.nn.Linear(1280, 1000)

    def forward(self, x):
        x = self.blocks(self.bn1(self.conv_stem(x)))
        x = self.global_pool(self.bn2(self.conv_head(x)))
        return self.classifier(x.flatten(1))

    def taps(self):
        taps = {"stem": self.bn1}
        for i, block in enumerate(block for stage in self.blocks for block in stage):
            parts = [block.bn1, block.bn2, block.bn3] if i else [block.bn1, block.bn2]
            names = ["expand", "depthwise", "project"][-len(parts) :]
            for name, part in zip(names, parts, strict=True):
                taps[f"block{i}/{name}"] = part
            taps[f"block{i}"] = block
        return taps | {"head": self.bn2, "pool": self.global_pool, "logits": self.classifier}


class Transformers(transformers.MobileNetV2ForImageClassification):
    def __init__(self):
        super().__init__(transformers.MobileNetV2Config(num_labels=1001))

    def taps(self):
        base = self.mobilenet_v2
        stem = base.conv_stem
        taps = {
            "stem": stem.first_conv,
            "block0/depthwise": stem.conv_3x3,
            "block0/project": stem.reduce_1x1,
            "block0": stem,
        }
        for i, layer in enumerate(base.layer, 1):
            taps |= {
                f"block{i}/expand": layer.expand_1x1,
                f"block{i}/depthwise": layer.conv_3x3,
                f"block{i}/project": layer.reduce_1x1,
                f"block{i}": layer,
            }
        return taps | {"head": base.conv_1x1, "pool": base.pooler, "logits": self.classifier}


def damped(network):
    """Random weights; of the projections less than 1, or rounding errors grow with each block."""
    randomise(network)
    with torch.no_grad():
        for name, module in network.taps().items():
            if name.endswith("project"):
                getattr(module, "normalization", module).weight *= 0.6


def as_published(network):
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def as_tflite(network):
    """The convolutions in forward order, with batch normalisation in them, as TFLite has them."""
    modules = list(network.modules())
    convolutions = [m for m in modules if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in modules if isinstance(m, torch.nn.BatchNorm2d)]
    file = {}
    for i, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
        kernel = (convolution.weight * scale[:, None, None, None]).detach()
        name = f"{i:02}_conv_2d"
        ohwi = kernel.permute(0, 2, 3, 1)
        if convolution.groups > 1:
            name = f"{i:02}_depthwise_conv_2d"
            ohwi = ohwi.permute(3, 1, 2, 0)
        file[f"{name}/kernel"] = ohwi.numpy()
        file[f"{name}/bias"] = (norm.bias - norm.running_mean * scale).detach().numpy()
        file[f"{name}/stride"] = np.int32(convolution.stride[0])
    kernel = network.classifier.weight[:, None, None].detach().numpy()
    file |= {"52_conv_2d/kernel": kernel, "52_conv_2d/stride": np.int32(1)}
    return file | {"52_conv_2d/bias": network.classifier.bias.detach().numpy()}


PUBLISHED = {
    "torchvision": ("mobilenet_v2", Torchvision, as_published),
    "timm": ("mobilenet_v2", Timm, as_published),
    "transformers": ("mobilenet_v2_tf", Transformers, as_published),
    "tflite": ("mobilenet_v2_tf", Transformers, as_tflite),
}


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request):
    """The entry, a function from a prepared image to the activations, and the tensors."""
    name, make, tensors = PUBLISHED[request.param]
    # Without storage at first: filling it twice would take most of the time.
    with torch.device("meta"):
        network = make().eval()
    network.to_empty(device="cpu")
    damped(network)
    found = {}

    def keep(name):
        def hook(module, inputs, output):
            found[name] = output

        return hook

    for name_of_tap, module in network.taps().items():
        module.register_forward_hook(keep(name_of_tap))

    def run(x):
        found.clear()
        network(x)
        return {**found, "pool": found["pool"].flatten(1)}

    return zoo.entries()[name], run, tensors(network)


@pytest.fixture(scope="module")
def model(published, tmp_path_factory):
    entry, _, tensors = published
    file = tmp_path_factory.mktemp("weights") / "weights.npz"
    np.savez(file, **tensors)
    return entry.load(file)


@pytest.mark.parametrize("size", SIZES)
def test_every_layer_agrees(size, model, published):
    entry, run, _ = published
    image = np.random.default_rng(0).uniform(size=(1, *size, 3)).astype(np.float32)
    if entry.name == "mobilenet_v2":
        prepared = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    else:
        prepared = 2 * image - 1
    with torch.no_grad():
        expected = run(torch.from_numpy(np.float32(prepared)).movedim(-1, 1))
    found = model(image)
    assert_layers_agree(found, expected)


def convolution(tensors):
    """The name of some depthwise kernel."""
    return next(name for name, array in tensors.items() if array.ndim == 4 and 1 in array.shape)


def test_a_missing_tensor_is_listed(published):
    entry, _, tensors = published
    name = convolution(tensors)
    rest = {key: array for key, array in tensors.items() if key != name}
    with pytest.raises(CheckpointError, match=f"1 differences.*\n  - {name} for block0/depthwise"):
        entry.architecture().params_from(rest, entry.layouts, "file")


def test_another_tensor_is_listed(published):
    entry, _, tensors = published
    more = {**tensors, "aux.weight": np.zeros((2, 3), np.float32)}
    with pytest.raises(CheckpointError, match=r"1 differences.*\n  \+ aux.weight \(2, 3\)"):
        entry.architecture().params_from(more, entry.layouts, "file")


def test_a_misshapen_tensor_is_listed(published):
    entry, _, tensors = published
    name = convolution(tensors)
    wrong = {**tensors, name: np.zeros((5, 5), np.float32)}
    with pytest.raises(CheckpointError, match=rf"- {name} for .*\n  \+ {name} \(5, 5\)"):
        entry.architecture().params_from(wrong, entry.layouts, "file")
