"""What a synthesis gives: images, their scores, the evidence and the manifest; and its files."""

from __future__ import annotations

import base64
import dataclasses
import functools
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from featvis.errors import InputError, NonFiniteError
from featvis.files import output_path, part_of_name, picture_name, write_file
from featvis.gradients.silence import warn_of_silence
from featvis.pictures import grid, to_picture
from featvis.results import format, packing
from featvis.results.manifest import Done, describe
from featvis.results.run import Run
from objectives import Objective, alone, separable


@dataclass(frozen=True, eq=False)
class Result:
    """Synthesized images and all that is known of them.

    `result[i]` is the result of one image alone, `len(result)` their number.

    Attributes:
        images: (n, h, w, c) float32 in [0, 1].
        scores: the objective at each step, under that step's transforms, (steps, n); NaN after
            an image has stopped.
        clean_scores: the objective on the final images without transforms, (n,).
        transformed_scores: its mean over 8 draws of the last step's transform on the final images,
            (n,).
        params: parameters of the final images, a pytree with the images first; `init=` takes them.
        sensitivity: how much the objective depended on each pixel on the way, (n, h, w): the sum
            over steps of |d score / d image| (Fel et al. 2023, the transparency of MaCo).
        snapshots: images (n, h, w, c) by the number of steps after which they were kept.
        runs: what made the images, each run going on from the one before.
        steps: steps taken by each image, (n,).
        stopped: why each image ended: "steps", "plateau", "interrupt" or "non-finite".
        failures: for each image None, or the step and the term that were not finite.
        silent: for each image None, or why its unit never gave a gradient: such a picture shows
            its start (or its priors), and nothing of the unit.
        seconds: the whole of the synthesis, compiling included.
        evidence: what was measured afterwards, by name; each an array (n,).
    """

    images: np.ndarray
    scores: np.ndarray
    clean_scores: np.ndarray
    transformed_scores: np.ndarray
    params: Any
    sensitivity: np.ndarray
    snapshots: Mapping[int, np.ndarray]
    runs: tuple[Done, ...]
    steps: np.ndarray
    stopped: tuple[str, ...]
    failures: tuple[str | None, ...]
    silent: tuple[str | None, ...]
    seconds: float
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Result:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        some, last = slice(index % len(self), index % len(self) + 1), self.runs[-1]
        first = (last.member or 0) + some.start
        return dataclasses.replace(
            self,
            images=self.images[some],
            scores=self.scores[:, some],
            clean_scores=self.clean_scores[some],
            transformed_scores=self.transformed_scores[some],
            params=jax.tree.map(lambda a: a[some], self.params),
            sensitivity=self.sensitivity[some],
            steps=self.steps[some],
            stopped=self.stopped[some],
            failures=self.failures[some],
            silent=self.silent[some],
            snapshots={step: images[some] for step, images in self.snapshots.items()},
            runs=(*self.runs[:-1], last._replace(member=first)),
            evidence={name: values[some] for name, values in self.evidence.items()},
        )

    def __iter__(self) -> Iterator[Result]:
        return (self[i] for i in range(len(self)))

    def or_raise(self) -> Result:
        """This result if every image stayed finite.

        Raises:
            NonFiniteError: one did not; the error names the steps and terms and holds the result.
        """
        failures = [failure for failure in self.failures if failure]
        if failures:
            raise NonFiniteError("; ".join(failures), self)
        return self

    def or_warn(self) -> Result:
        """This result.

        Warns:
            SilenceWarning: the unit of an image never gave a gradient; says why.
        """
        warn_of_silence(self.silent, self._objective, stacklevel=4)
        return self

    def followed_by(self, later: Result) -> Result:
        """What a run gives that went on from this result: `later`, with the way here before it.

        Sensitivities, which may be of another size, and transformed scores are the later run's.
        """
        same = str(self.run.objective) == str(later.run.objective)
        return dataclasses.replace(
            later,
            runs=(*self.runs, *later.runs),
            scores=np.concatenate([self.scores, later.scores]),
            snapshots={
                **self.snapshots,
                **{len(self.scores) + step: images for step, images in later.snapshots.items()},
            },
            steps=self.steps + later.steps,
            stopped=tuple(
                "non-finite" if failed else why
                for failed, why in zip(self.failures, later.stopped, strict=True)
            ),
            failures=tuple(
                first or second for first, second in zip(self.failures, later.failures, strict=True)
            ),
            # Of one objective: never on the whole way. Another unit has none of what was before.
            silent=tuple(
                second if first or not same else None
                for first, second in zip(self.silent, later.silent, strict=True)
            ),
            seconds=self.seconds + later.seconds,
        )

    def with_evidence(self, **measured: Any) -> Result:
        """The same result with more evidence, arrays (n,) by name."""
        added = {name: np.asarray(values) for name, values in measured.items()}
        return dataclasses.replace(self, evidence={**self.evidence, **added})

    def picture(self, index: int = 0, *, transparent: bool = False) -> Image.Image:
        """One image as a Pillow picture: grey for 1 channel, RGB for 3, else a grey panel each.

        Args:
            index: of the image.
            transparent: let pixels fade that the objective hardly depended on: opacity is the
                sensitivity over its 80th percentile, at most 1 (Fel et al. 2023, section 3.2).
        """
        picture = to_picture(self.images[index])
        if transparent:
            sensitivity = self.sensitivity[index]
            full = np.percentile(sensitivity, 80)
            opacity = sensitivity / full if full > 0 else np.ones_like(sensitivity)
            panels = picture.width // opacity.shape[1]
            picture.putalpha(to_picture(np.tile(opacity, (1, panels))[..., None]))
        return picture

    def grid(self, labels: Sequence[str] = (), columns: int | None = None) -> Image.Image:
        """All images in one picture.

        Args:
            labels: one line under each image; none for no labels.
            columns: of the grid; by default as square as it goes.
        """
        return grid([to_picture(image) for image in self.images], labels, columns)

    def save(
        self,
        path: str | Path,
        *,
        labels: Sequence[str] = (),
        columns: int | None = None,
        force: bool = False,
    ) -> Path:
        """Writes the picture as PNG with the manifest inside, and the manifest beside it as JSON.

        Several images are written as one grid. An existing file is kept: the new picture and its
        JSON get a number before their suffixes, `unit-1.png`. What was given to the run as arrays
        (targets, a start) is in neither: it lies beside them in a file that all pictures of the
        same arrays share, `featvis-<digest>.safetensors`; `replay` needs it in the same folder.

        Args:
            path: a file's, which ends in .png, or has no suffix and gets it; or a folder's, which
                ends in a slash and is made, or is there: the network and the objective name the
                picture in it.
            labels: text under each image; none for no labels.
            columns: of the grid; by default as square as it goes.
            force: write over an existing file.

        Returns:
            The path of the PNG as it was written.

        Raises:
            OutputError: it cannot be written.
            InputError: another suffix.

        Warns:
            NameTakenWarning: there was a file of that name; says the new one's.
        """
        alone = len(self) == 1 and not labels
        picture = self.picture() if alone else self.grid(labels, columns)
        path = output_path(path, name=self._name)
        record = packing.record_of(self.manifest, path.parent)
        info = PngInfo()
        info.add_itxt(format.KEYWORD, json.dumps(record), zip=True)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", pnginfo=info)
        text = json.dumps({**record, "result": self.summary()}, indent=1) + "\n"
        return write_file(path, buffer.getvalue(), beside={".json": text.encode()}, force=force)

    def save_animation(
        self, path: str | Path, *, seconds: float = 4.0, force: bool = False
    ) -> Path:
        """Writes the snapshots as an animated WebP or GIF, by the suffix.

        Those of another size, of runs before this one, are scaled to that of the last.

        Args:
            path: a file's, which ends in .webp or .gif; or a folder's, as for `save`.
            seconds: of one run through, above 0.
            force: write over an existing file.

        Returns:
            The path as it was written: with a number where there was a file.

        Raises:
            InputError: no snapshots were kept, or another suffix.
            OutputError: it cannot be written.

        Warns:
            NameTakenWarning: there was a file of that name; says the new one's.
        """
        if not self.snapshots:
            raise InputError("no snapshots to animate: synthesize(..., snapshots=24) keeps them")
        if not seconds > 0:
            raise InputError(f"seconds must be above 0; got {seconds}")
        path = output_path(path, (".webp", ".gif"), name=self._name)
        pictures = [
            [to_picture(image) for image in self.snapshots[k]] for k in sorted(self.snapshots)
        ]
        size = pictures[-1][0].size
        frames = [grid([one.resize(size) for one in several]) for several in pictures]
        buffer = io.BytesIO()
        frames[0].save(
            buffer,
            path.suffix[1:].upper(),
            save_all=True,
            append_images=frames[1:],
            duration=max(20, round(1000 * seconds / len(frames))),
            loop=0,
        )
        return write_file(path, buffer.getvalue(), force=force)

    def summary(self) -> dict[str, Any]:
        """The figures of the result, plain data."""
        return {
            "score": _finite(self.transformed_scores),
            "clean_score": _finite(self.clean_scores),
            "steps": self.steps.tolist(),
            "stopped": list(self.stopped),
            "silent": list(self.silent),
            "seconds": round(self.seconds, 3),
            "evidence": {name: _finite(values) for name, values in self.evidence.items()},
        }

    @property
    def run(self) -> Run:
        """The run that made the images, after those that it went on from."""
        return self.runs[-1].run

    @property
    def members(self) -> np.ndarray:
        """The places of the images in the batch of their run, (n,)."""
        return np.arange(len(self)) + (self.runs[-1].member or 0)

    @functools.cached_property
    def manifest(self) -> Mapping[str, Any]:
        """All that makes the images again, plain data (`featvis.results.manifest`)."""
        return describe(self.runs)

    @property
    def objective(self) -> Objective:
        """What was maximised; of one image of a batch, what was for that one alone."""
        whole, last = self.run.parts.objective, self.runs[-1]
        if last.member is None or last.images == 1 or not separable(whole):
            return whole
        return alone(whole, last.member)

    @property
    def _objective(self) -> str:
        return str(self.objective)

    @property
    def _name(self) -> str:
        """The name of its file in a folder, without suffix."""
        return picture_name(self.run.parts.model.name, part_of_name(self._objective))

    def __repr__(self) -> str:
        clean = ", ".join(f"{score:.4g}" for score in self.clean_scores)
        return (
            f"Result({_shorten(self._objective)}, {len(self)} x "
            f"{self.images.shape[1]}x{self.images.shape[2]}, clean scores {clean})"
        )

    def _repr_html_(self) -> str:
        """Pictures and figures, as a notebook shows them."""
        cells = []
        for i, one in enumerate(self):
            buffer = io.BytesIO()
            one.picture().save(buffer, "PNG")
            data = base64.b64encode(buffer.getvalue()).decode()
            facts = [f"clean score {self.clean_scores[i]:.4g}"]
            facts += [f"{k.replace('_', ' ')} {v[i]:.4g}" for k, v in self.evidence.items()]
            if self.silent[i] is not None:
                facts.append(f"no gradient: {self.silent[i]}")
            cells.append(
                f'<figure style="display:inline-block;margin:4px">'
                f'<img alt="image {i}" src="data:image/png;base64,{data}">'
                f"<figcaption>{html.escape(', '.join(facts))}</figcaption></figure>"
            )
        title = html.escape(_shorten(self._objective))
        return f"<div><code>{title}</code><br>{''.join(cells)}</div>"


def _finite(values: np.ndarray) -> list[float | None]:
    """As a list, with None for what JSON has no number for."""
    return [value if np.isfinite(value) else None for value in values.tolist()]


def _shorten(text: str, length: int = 100) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
