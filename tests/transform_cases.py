"""One list of transforms, and one of schedules, sent through every law by the tests."""

from featvis.transforms import (
    PRESETS,
    Blur,
    ColorShift,
    Cutout,
    Flip,
    Jitter,
    LinearSchedule,
    Noise,
    NormalCrop,
    Pad,
    RandomAffine,
    RandomCrop,
    RandomResizedCrop,
    RandomScale,
    Roll,
    Rotate,
)

#: Schedules; each is of a number that a transform draws with.
SCHEDULES = [LinearSchedule(0.1, 0.3)]

# The second value is the output's shape for an input of (11, 14, c).
CASES = [
    (Pad(3), (17, 20)),
    (Pad(3, "reflect"), (17, 20)),
    (Pad((0, 2), "edge"), (13, 16)),
    (RandomCrop((6, 9)), (6, 9)),
    (Jitter(4), (7, 10)),
    (Roll(5), (11, 14)),
    (RandomAffine((0.7, 1.2), (-60, 60), 3.5, "reflect"), (11, 14)),
    (RandomAffine((0.7, 1.2), (-60, 60), 3.5, "constant", 0.25), (11, 14)),
    (RandomScale(0.7, 1.4), (11, 14)),
    (Rotate(-30, 30), (11, 14)),
    (RandomResizedCrop(0.3, 1.0, size=(5, 7)), (5, 7)),
    (RandomResizedCrop(0.05, 0.99, None), (11, 14)),
    (NormalCrop(0.4, size=(5, 7)), (5, 7)),
    (Blur(1.2), (11, 14)),
    (Noise(0.1), (11, 14)),
    (Flip(), (11, 14)),
    (ColorShift(0.5), (11, 14)),
    (Cutout(0.4, 0.25), (11, 14)),
    (PRESETS["standard"]((160, 200)), (23, 26)),
    (PRESETS["none"]((11, 14)), (11, 14)),
]
FIXED = (Pad, Blur)  # the same for every key
