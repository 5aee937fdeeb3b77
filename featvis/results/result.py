"""What a synthesis gives: images, their scores, the evidence and the manifest; and its files."""

from __future__ import annotations

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

from featvis.errors import InputError, NonFiniteError
from featvis.files import output_path, part_of_name, picture_name, write_file
from featvis.gradients.silence import warn_of_silence
from featvis.models import Model
from featvis.pictures import address_of, corners_of, grid, to_picture
from featvis.results import format, packing
from featvis.results.history import SavedRuns
from featvis.results.manifest import Done, describe, describe_joined
from featvis.results.run import Run
from objectives import Objective


@dataclass(frozen=True, eq=False)
class Result:
    """Synthesized images and all that is known of them.

    `result[i]` is the result of one image alone, `result[1:3]` that of some, `len(result)` their
    number; each keeps its place in the batch that it was made in, and so its objective.

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
        joined: the results that this one was joined from; none of one that was made by one run.
    """

    images: np.ndarray
    scores: np.ndarray
    clean_scores: np.ndarray
    transformed_scores: np.ndarray
    params: Any
    sensitivity: np.ndarray
    snapshots: Mapping[int, np.ndarray]
    runs: Sequence[Done]
    steps: np.ndarray
    stopped: tuple[str, ...]
    failures: tuple[str | None, ...]
    silent: tuple[str | None, ...]
    seconds: float
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)
    joined: tuple[Result, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Result:
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"image {index} of {len(self)}")
            return self._of([int(index) % len(self)])
        chosen = range(len(self))[index] if isinstance(index, slice) else index
        if not len(chosen):
            raise IndexError(f"none of the {len(self)} images")
        if not self.joined:
            return self._of([range(len(self))[place] for place in chosen])
        return Result.join([self[place] for place in chosen])

    def _of(self, places: list[int]) -> Result:
        """Some of the images, each once; of a joined result one."""
        if self.joined:
            (place,) = places
            for part in self.joined:
                if place < len(part):
                    return part[place]
                place -= len(part)
        if len(set(places)) < len(places):
            raise InputError(f"an image is chosen once; got {places}")
        member = tuple(int(self.members[place]) for place in places)
        return dataclasses.replace(
            self,
            images=self.images[places],
            scores=self.scores[:, places],
            clean_scores=self.clean_scores[places],
            transformed_scores=self.transformed_scores[places],
            params=jax.tree.map(lambda a: a[np.array(places)], self.params),
            sensitivity=self.sensitivity[places],
            steps=self.steps[places],
            stopped=tuple(self.stopped[place] for place in places),
            failures=tuple(self.failures[place] for place in places),
            silent=tuple(self.silent[place] for place in places),
            snapshots={step: images[places] for step, images in self.snapshots.items()},
            runs=runs_for(self.runs, member if len(member) > 1 else member[0]),
            evidence={name: values[places] for name, values in self.evidence.items()},
        )

    @staticmethod
    def join(results: Sequence[Result]) -> Result:
        """Results as one, the images one after the other; each keeps where it comes from.

        A picture of all is `join(results).save("all.png")`, and `replay` makes all of them again.
        What they do not have in common (parameters of another parameterization, evidence that only
        some have, snapshots after other steps) is in `joined[i]`. To a run that goes on from it, a
        joined result is images to start from.

        Args:
            results: at least one, of images of one shape.

        Returns:
            The result, whose parts are in `joined`; one alone as it is.

        Raises:
            InputError: none, or images of several shapes.
        """
        from featvis.results.joining import join

        return join(results)

    @staticmethod
    def load(path: str | Path, *, model: Model | None = None) -> Result:
        """A result that `save` wrote, as it was saved; nothing is computed, nor a network loaded.

        Images are those of the PNG, of 8 bits a channel, and figures those of the JSON beside it
        (NaN where it is not there). What is in neither is empty: the scores of the steps, the
        parameters, the sensitivity, the snapshots; `replay` makes them again.

        Args:
            path: the PNG, or the JSON beside it.
            model: the network, for evidence of it, where `featvis.load` does not know it.

        Raises:
            InputError: no such file, not one of ours, or a damaged one.
        """
        from featvis.results import saved

        return saved.load(path, model)

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
        """The same result with more evidence: what was `measured`, arrays (n,) by name."""
        added = {name: np.asarray(values) for name, values in measured.items()}
        return dataclasses.replace(self, evidence={**self.evidence, **added})

    def picture(self, index: int = 0, *, transparent: bool = False) -> Image.Image:
        """One image as a Pillow picture: grey for 1 channel, RGB for 3, else a grey panel each.

        Args:
            index: of the image.
            transparent: with the opacity that the parameterization gives it (`Figure`); of one
                that gives none, let pixels fade that the objective hardly depended on: opacity is
                the sensitivity over its 80th percentile, at most 1 (Fel et al. 2023, section 3.2).

        Raises:
            InputError: a result that was loaded, which has no sensitivity.
        """
        picture = to_picture(self.images[index])
        if transparent:
            if np.isnan(self.sensitivity[index]).any():
                raise InputError(
                    "a result that was loaded has no sensitivity: replay makes it again"
                )
            if (layers := self._layers(index)) is not None:
                picture = to_picture(layers[..., :-1])
                picture.putalpha(to_picture(layers[..., -1:]))
                return picture
            sensitivity = self.sensitivity[index]
            full = np.percentile(sensitivity, 80)
            opacity = sensitivity / full if full > 0 else np.ones_like(sensitivity)
            panels = picture.width // opacity.shape[1]
            picture.putalpha(to_picture(np.tile(opacity, (1, panels))[..., None]))
        return picture

    def _layers(self, index: int) -> np.ndarray | None:
        """Colours and opacity of an image (h, w, c + 1), where its parameterization has both."""
        if self.joined:
            return self._of([index % len(self)])._layers(0)
        params = jax.tree.map(lambda values: values[index], self.params)
        layers = self.run.parts.parameterization.with_opacity(params)
        return None if layers is None else np.asarray(layers)

    def grid(self, labels: Sequence[str] = (), *, columns: int | None = None) -> Image.Image:
        """All images in one picture.

        Args:
            labels: one line under each image; none for no labels.
            columns: of the grid; by default as square as it goes.
        """
        return grid([to_picture(image) for image in self.images], labels, columns=columns)

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
        picture = self.picture() if alone else self.grid(labels, columns=columns)
        path = output_path(path, name=self._name)
        record = packing.record_of(self.manifest, path.parent)
        height, width, channels = self.images.shape[1:]
        size = width if channels == 3 else width * channels, height
        corners = [(0, 0)] if alone else corners_of(len(self), size, labels, columns)
        record["layout"] = {"shape": [height, width, channels], "corners": corners}
        content = packing.png_of(picture, record)
        text = json.dumps({**record, "result": self.summary()}, indent=1) + "\n"
        return write_file(path, content, beside={".json": text.encode()}, force=force)

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
        """The run that made the images, after those that it went on from.

        Raises:
            InputError: results that were joined have one each.
        """
        if self.joined:
            raise InputError("results that were joined have a run each: see .joined")
        return self.runs[-1].run

    @property
    def members(self) -> np.ndarray:
        """The places of the images in the batches of their runs, (n,)."""
        if self.joined:
            return np.concatenate([part.members for part in self.joined])
        return np.array(format.places_of(_member_of(self.runs), len(self)))

    @functools.cached_property
    def manifest(self) -> Mapping[str, Any]:
        """All that makes the images again, plain data (`featvis.results.manifest`)."""
        if self.joined:
            return describe_joined([part.manifest for part in self.joined])
        return self.runs.manifest if isinstance(self.runs, SavedRuns) else describe(self.runs)

    @property
    def objective(self) -> Objective:
        """What was maximised; of some images of a batch, what was for those alone.

        Raises:
            InputError: results that were joined have one each; or one was saved whose targets are
                of a network that is not here.
        """
        if self.joined:
            raise InputError("results that were joined have an objective each: see .joined")
        return self.runs.objective if isinstance(self.runs, SavedRuns) else self.runs[-1].objective

    @property
    def _objective(self) -> str:
        if self.joined:
            return "; ".join(dict.fromkeys(part._objective for part in self.joined))
        if isinstance(self.runs, SavedRuns):
            return self.runs.text
        return str(self.objective)

    @property
    def _name(self) -> str:
        """The name of its file in a folder, without suffix."""
        model = format.last_run(format.parts_of(self.manifest)[0])["model"]["name"]
        return picture_name(model, part_of_name(self._objective))

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
            whose = "" if one._objective == self._objective else f"{_shorten(one._objective)}: "
            data = address_of(one.picture())
            facts = [f"clean score {self.clean_scores[i]:.4g}"]
            facts += [f"{k.replace('_', ' ')} {v[i]:.4g}" for k, v in self.evidence.items()]
            if self.silent[i] is not None:
                facts.append(f"no gradient: {self.silent[i]}")
            cells.append(
                f'<figure style="display:inline-block;margin:4px">'
                f'<img alt="image {i}" src="{data}">'
                f"<figcaption>{html.escape(whose + ', '.join(facts))}</figcaption></figure>"
            )
        title = html.escape(_shorten(self._objective))
        return f"<div><code>{title}</code><br>{''.join(cells)}</div>"


def _member_of(runs: Sequence[Done]) -> Any:
    """The place, or the places, of a result's images in the batch of the last run."""
    return runs.manifest.get("member") if isinstance(runs, SavedRuns) else runs[-1].member


def runs_for(runs: Sequence[Done], member: int | tuple[int, ...]) -> Sequence[Done]:
    """The same runs, of some of the images."""
    if isinstance(runs, SavedRuns):
        return runs.of(member)
    return (*runs[:-1], runs[-1]._replace(member=member))


def _finite(values: np.ndarray) -> list[float | None]:
    """As a list, with None for what JSON has no number for."""
    return [value if np.isfinite(value) else None for value in values.tolist()]


def _shorten(text: str, length: int = 100) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
