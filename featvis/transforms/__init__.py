"""Random transforms of one image, drawn from a key: what makes a picture robust."""

from featvis.transforms.appearance import Blur, ColorShift, Cutout, Noise
from featvis.transforms.geometry import (
    BORDERS,
    Flip,
    Jitter,
    NormalCrop,
    Pad,
    RandomAffine,
    RandomCrop,
    RandomResizedCrop,
    RandomScale,
    Roll,
    Rotate,
)
from featvis.transforms.presets import PRESETS
from featvis.transforms.schedules import LinearSchedule, Schedule, Scheduled, number_or_schedule
from featvis.transforms.transform import Compose, Transform

__all__ = [
    "BORDERS",
    "PRESETS",
    "Blur",
    "ColorShift",
    "Compose",
    "Cutout",
    "Flip",
    "Jitter",
    "LinearSchedule",
    "Noise",
    "NormalCrop",
    "Pad",
    "RandomAffine",
    "RandomCrop",
    "RandomResizedCrop",
    "RandomScale",
    "Roll",
    "Rotate",
    "Schedule",
    "Scheduled",
    "Transform",
    "number_or_schedule",
]
