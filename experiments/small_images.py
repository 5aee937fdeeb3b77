"""Small images: transforms in proportion to the picture, or in pixels as at 160 and above?

Paper: Olah et al. 2017, "Feature Visualization" (Distill), whose defaults shift a picture by up to
    8 pixels at every step: a twentieth of 160 pixels, a quarter of 32.
Command: python experiments/small_images.py -o OUT   (fetches the weights the first time; --weights
    FILE for one's own copy)
Runtime: 3 min on two CPU cores (with other work beside it 6 min).
What it showed: cifar_resnet20, its ten classes, 512 steps, seed 0: the mean clean score is 130 with
    the shift in proportion (1.6 pixels), 104 with 8 pixels and 167 without transforms; under its
    own transforms 119, 93 and 167. The pictures: in proportion, a car, a bird, a cat's face, deer
    with antlers, a frog, a ship and a truck can be told; with 8 pixels they can too, smaller or cut
    off, the rest of the frame filled up; without transforms there is speckle in which a car and a
    ship are guessed, at the highest scores: a score alone proves nothing.
"""

from __future__ import annotations

import time

import numpy as np
import studies

import featvis as fv
from featvis.pictures import grid, to_picture

#: What is compared: the preset, the preset as it is for 160 pixels and more, and nothing.
TRANSFORMS = {
    "in proportion": "affine",
    "8 pixels": fv.transforms.PRESETS["affine"]((160, 160)),
    "none": "none",
}
#: One for all three; class scores by default have a smaller rate, for `views`.
_OPTIMIZER = "nadam(0.035)"
#: Each pixel of a picture of 32 x 32 is shown as so many.
_ZOOM = 3


def main() -> None:
    """Synthesizes every class under each transform; prints the table and writes a sheet."""
    line = studies.CommandLine(
        __doc__, "small_images", quick="32 steps, in place of 512",
        seed="the starts and the transforms",
    )  # fmt: skip
    line.add_argument("--model", default="cifar_resnet20", help="a network")
    line.add_argument("--weights", help="a file of weights; by default those that are fetched")
    line.add_argument("--steps", type=int, default=512, help="steps of a picture")
    arguments, started = line.read(), time.perf_counter()
    steps = 32 if arguments.quick else arguments.steps
    if arguments.weights is None:
        fv.fetch(arguments.model)
    model = fv.load(arguments.model, arguments.weights)
    classes = np.arange(model.layers()["logits"][0])[:10]
    pictures, labels = [], []
    print(f"{'transform':15} {'clean':>8} {'transformed':>12} {'seconds':>8}")
    for name, transform in TRANSFORMS.items():
        result = fv.synthesize(
            model,
            fv.Logit(classes),
            transform=transform,
            optimizer=_OPTIMIZER,
            steps=steps,
            seed=[arguments.seed] * len(classes),
        )
        clean, moved = result.clean_scores.mean(), result.transformed_scores.mean()
        print(f"{name:15} {clean:8.1f} {moved:12.1f} {result.seconds:8.0f}", flush=True)
        for index, image in zip(classes, result.images, strict=True):
            picture = to_picture(image)
            size = (picture.width * _ZOOM, picture.height * _ZOOM)
            pictures.append(picture.resize(size, 0))
            labels.append(model.labels[index] if model.labels else str(index))
        result.save(arguments.out / f"{name.replace(' ', '-')}.png", force=True)
    path = arguments.out / "sheet.png"
    grid(pictures, labels, columns=len(classes)).save(path)
    studies.finish(started, path)


if __name__ == "__main__":
    studies.run(main)
