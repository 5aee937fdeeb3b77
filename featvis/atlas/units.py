"""What an atlas knows of a unit: its pictures, and what natural images do to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featvis.atlas.store import Batch
from featvis.files import part_of_name, picture_name
from featvis.models import Model
from featvis.pictures import from_picture
from featvis.results import Result
from featvis.results.history import SavedRuns, replay_command

if TYPE_CHECKING:
    from featvis.atlas.reader import Atlas

#: What natural images do to the units of a layer, arrays whose first axis is all its units; of the
#: n images at each end, and the m nearest units.
NATURAL = {
    "highest": "places in the index of the images that excite it the most, (units, n)",
    "highest_scores": "the largest activations of their maps, (units, n)",
    "highest_boxes": "top, left, bottom, right of what it sees there, (units, n, 4)",
    "lowest": "places of those that excite it the least, (units, n)",
    "lowest_scores": "(units, n)",
    "lowest_boxes": "(units, n, 4)",
    "histogram": "images by the largest activation of their map, (units, bins)",
    "range": "the ends of the histogram, whose bins are equally wide, (units, 2)",
    "mean": "of the largest activations, (units,)",
    "sd": "of them, (units,)",
    "zeros": "the share of the images where it is exactly 0, (units,)",
    "dead": "whether it is the same for all images, (units,)",
    "nearest": "the units whose responses go with its own the most, (units, m); -1: none",
    "correlations": "of these, (units, m)",
    "percentiles": "of the channel's first picture among the images' means, (units,); NaN: none",
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A synthesized picture of a unit.

    Attributes:
        unit: its text, "block8:3".
        layer: its layer.
        number: of the unit in it.
        objective: "channel", the mean of its map, or "neuron", the middle of it.
        role: "picture"; "negative", the one that lowers it; "diverse" or "facet".
        place: which of several: seed, diverse picture or facet, from 0.
        clean_score: the unit's activation on the clean picture, whatever else was maximised; of a
            facet the largest of its map. NaN where it was not finite.
        transformed_score: its mean under the last step's transforms.
        steps: taken.
        silent: why the unit never gave a gradient, or None.
        failed: what was not finite, or None.
        batch: the record that it is of.
        lane: its place in the batch.
    """

    unit: str
    layer: str
    number: int
    objective: str
    role: str
    place: int
    clean_score: float
    transformed_score: float
    steps: int
    silent: str | None
    failed: str | None
    batch: Batch = field(repr=False)
    lane: int = field(repr=False)
    atlas: Atlas = field(repr=False)

    @property
    def image(self) -> np.ndarray:
        """The picture, (h, w, c) uint8."""
        return self.atlas.block(self.batch)[self.lane]

    @property
    def seconds(self) -> float:
        """That it took, its part of the batch."""
        return self.batch.seconds / len(self.batch)

    @property
    def manifest(self) -> dict[str, Any]:
        """All that makes it again, to the bit: what `featvis replay` reads."""
        return {**self.atlas.store.manifest(self.batch), "member": self.lane}

    @property
    def name(self) -> str:
        """Of its file, without suffix."""
        what = self.unit
        if self.objective != "channel":
            what += f" {self.objective}"
        if self.role != "picture":
            what += f" {self.role}"
        if self.place:
            what += f" {self.place}"
        return picture_name(self.atlas.settings["model"]["name"], part_of_name(what))

    @property
    def command(self) -> str:
        """What makes it again, where its file `<name>.png` (see `save`) is."""
        return replay_command(f"{self.name}.png", self.atlas.settings["model"]["name"])

    def result(self, model: Model | None = None) -> Result:
        """It as a result, with its figures; nothing is computed.

        Args:
            model: the network, where `featvis.load` does not know it.
        """
        height, width, channels = self.atlas.store.shape
        one = np.float32
        return Result(
            images=from_picture(self.image, (height, width, channels))[None],
            scores=np.zeros((0, 1), np.float32),
            clean_scores=np.array([self._signed(self.clean_score)], one),
            transformed_scores=np.array([self._signed(self.transformed_score)], one),
            params=None,
            sensitivity=np.full((1, height, width), np.nan, np.float32),
            snapshots={},
            runs=SavedRuns(self.manifest, model),
            steps=np.array([self.steps]),
            stopped=("non-finite" if self.failed else "steps",),
            failures=(self.failed,),
            silent=(self.silent,),
            seconds=self.seconds,
        )

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Writes it as a PNG that `featvis replay` makes again, as `Result.save` does."""
        return self.result().save(path, force=force)

    def _signed(self, score: float) -> float:
        return -score if self.role == "negative" else score


@dataclass(frozen=True, eq=False)
class Natural:
    """What natural images do to one unit; see `NATURAL` for each.

    Attributes:
        highest: places in the index, (n,), those that excite it the most first.
        highest_scores: (n,).
        highest_boxes: (n, 4), top, left, bottom and right of what it sees.
        lowest: places, those that excite it the least first.
        lowest_scores: (n,).
        lowest_boxes: (n, 4).
        histogram: images by the largest activation of their map, (bins,).
        edges: of the bins, (bins + 1,).
        mean: of the largest activations.
        sd: of them.
        zeros: the share of the images where it is exactly 0.
        dead: whether it is the same for all images.
        nearest: texts of the units whose responses go with its own the most.
        correlations: of these, (m,).
        percentile: of its first picture among the images, by the mean of the map, or NaN.
        files: the images' paths by their place, as far as they are named here.
        images: how many there are.
    """

    highest: np.ndarray
    highest_scores: np.ndarray
    highest_boxes: np.ndarray
    lowest: np.ndarray
    lowest_scores: np.ndarray
    lowest_boxes: np.ndarray
    histogram: np.ndarray
    edges: np.ndarray
    mean: float
    sd: float
    zeros: float
    dead: bool
    nearest: tuple[str, ...]
    correlations: np.ndarray
    percentile: float
    files: Mapping[int, str]
    images: int


@dataclass(frozen=True, eq=False)
class Unit:
    """A unit of an atlas.

    Attributes:
        layer: its layer.
        number: in it.
        label: the name of the class, or "".
        pictures: all there are, in the order of `ROLES` and their places.
        natural: what natural images do to it, or None.
    """

    layer: str
    number: int
    label: str
    pictures: tuple[Picture, ...]
    natural: Natural | None

    @property
    def text(self) -> str:
        """As one writes it: "block8:3"."""
        return f"{self.layer}:{self.number}"

    def of(self, role: str, objective: str | None = None) -> tuple[Picture, ...]:
        """Its pictures of a role, of the first objective that there is where none is given."""
        found = [one for one in self.pictures if one.role == role]
        wanted = objective or next((one.objective for one in found), None)
        return tuple(one for one in found if one.objective == wanted)

    @property
    def picture(self) -> Picture | None:
        """Its first picture, of the first seed."""
        return next(iter(self.of("picture")), None)

    @property
    def negative(self) -> Picture | None:
        """The picture that lowers it the most."""
        return next(iter(self.of("negative")), None)

    @property
    def clean_score(self) -> float:
        """Of its first picture; NaN where there is none."""
        return self.picture.clean_score if self.picture else float("nan")

    @property
    def spread(self) -> float:
        """The deviation of the clean scores over the seeds (of a sample); NaN of fewer than two."""
        scores = [one.clean_score for one in self.of("picture")]
        return float(np.std(scores, ddof=1)) if len(scores) > 1 else float("nan")

    @property
    def dead(self) -> bool:
        """Whether it is the same for all natural images, or its picture never got a gradient."""
        silent = self.picture is not None and self.picture.silent is not None
        return silent or (self.natural is not None and self.natural.dead)
