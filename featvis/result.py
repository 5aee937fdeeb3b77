"""What a synthesis gives: images, their scores, the evidence and the manifest; and its files."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from featvis import manifest as manifests
from featvis.errors import InputError, NonFiniteError, OutputError


@dataclass(frozen=True, eq=False)
class Result:
    """Synthesized images and all that is known of them.

    `result[i]` is the result of one image alone, `len(result)` their number.

    Attributes:
        images: (n, h, w, c) float32 in [0, 1].
        scores: the objective at each step, under that step's transforms, (steps, n); NaN after
            an image has stopped.
        clean_scores: the objective on the final images without transforms, (n,).
        transformed_scores: its mean over 8 draws of the transform on the final images, (n,).
        params: parameters of the final images, a pytree with the images first; `init=` takes them.
        sensitivity: how much the objective depended on each pixel on the way, (n, h, w): the sum
            over steps of |d score / d image| (Fel et al. 2023, the transparency of MaCo).
        snapshots: images (n, h, w, c) by the number of steps after which they were kept.
        manifest: all that makes the images again, plain data.
        steps: steps taken by each image, (n,).
        stopped: why each image ended: "steps", "plateau", "interrupt" or "non-finite".
        failures: for each image None, or the step and the term that were not finite.
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
    manifest: Mapping[str, Any]
    steps: np.ndarray
    stopped: tuple[str, ...]
    failures: tuple[str | None, ...]
    seconds: float
    evidence: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Result:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        one = slice(index % len(self), index % len(self) + 1)
        return dataclasses.replace(
            self,
            images=self.images[one],
            scores=self.scores[:, one],
            clean_scores=self.clean_scores[one],
            transformed_scores=self.transformed_scores[one],
            params=jax.tree.map(lambda a: a[one], self.params),
            sensitivity=self.sensitivity[one],
            steps=self.steps[one],
            stopped=self.stopped[one],
            failures=self.failures[one],
            snapshots={step: images[one] for step, images in self.snapshots.items()},
            manifest={**self.manifest, "member": self.manifest.get("member", 0) + one.start},
            evidence={name: values[one] for name, values in self.evidence.items()},
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

    def followed_by(self, later: Result) -> Result:
        """What a run gives that went on from this result: `later`, with the way here before it.

        Sensitivities, which may be of another size, and transformed scores are the later run's.
        """
        return dataclasses.replace(
            later,
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

        Several images are written as one grid. An existing file is kept: the new one gets a
        number before its suffix.

        Args:
            path: ends in .png, or has no suffix and gets it.
            labels: one line under each image; none for no labels.
            columns: of the grid; by default as square as it goes.
            force: write over an existing file.

        Returns:
            The path of the PNG.

        Raises:
            OutputError: it cannot be written.
            InputError: another suffix.
        """
        alone = len(self) == 1 and not labels
        picture = self.picture() if alone else self.grid(labels, columns)
        path = output_path(path, force=force)
        info = PngInfo()
        info.add_itxt(manifests.KEYWORD, json.dumps(self.manifest), zip=True)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", pnginfo=info)
        record = {**self.manifest, "result": self.summary()}
        write_file(path, buffer.getvalue())
        write_file(path.with_suffix(".json"), (json.dumps(record, indent=1) + "\n").encode())
        return path

    def save_animation(
        self, path: str | Path, *, seconds: float = 4.0, force: bool = False
    ) -> Path:
        """Writes the snapshots as an animated WebP or GIF, by the suffix.

        Those of another size, of runs before this one, are scaled to that of the last.

        Args:
            path: ends in .webp or .gif.
            seconds: of one run through, above 0.
            force: write over an existing file.

        Raises:
            InputError: no snapshots were kept, or another suffix.
            OutputError: it cannot be written.
        """
        if not self.snapshots:
            raise InputError("no snapshots to animate: synthesize(..., snapshots=24) keeps them")
        if not seconds > 0:
            raise InputError(f"seconds must be above 0; got {seconds}")
        path = output_path(path, force=force, suffixes=(".webp", ".gif"))
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
        return write_file(path, buffer.getvalue())

    def summary(self) -> dict[str, Any]:
        """The figures of the result, plain data."""
        return {
            "score": _finite(self.transformed_scores),
            "clean_score": _finite(self.clean_scores),
            "steps": self.steps.tolist(),
            "stopped": list(self.stopped),
            "seconds": round(self.seconds, 3),
            "evidence": {name: _finite(values) for name, values in self.evidence.items()},
        }

    def __repr__(self) -> str:
        clean = ", ".join(f"{score:.4g}" for score in self.clean_scores)
        return (
            f"Result({_shorten(self.manifest['objective'])}, {len(self)} x "
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
            cells.append(
                f'<figure style="display:inline-block;margin:4px">'
                f'<img alt="image {i}" src="data:image/png;base64,{data}">'
                f"<figcaption>{html.escape(', '.join(facts))}</figcaption></figure>"
            )
        title = html.escape(_shorten(self.manifest["objective"]))
        return f"<div><code>{title}</code><br>{''.join(cells)}</div>"


def _finite(values: np.ndarray) -> list[float | None]:
    """As a list, with None for what JSON has no number for."""
    return [value if np.isfinite(value) else None for value in values.tolist()]


def _shorten(text: str, length: int = 100) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def to_picture(image: np.ndarray) -> Image.Image:
    """An image (h, w, c) in [0, 1] as a Pillow picture of 8 bits.

    One channel is grey, three are RGB; of any other number each channel is grey, one beside the
    other from left to right.
    """
    levels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if levels.shape[-1] == 3:
        return Image.fromarray(levels)
    return Image.fromarray(np.concatenate(np.moveaxis(levels, -1, 0), axis=1))


def grid(
    pictures: Sequence[Image.Image], labels: Sequence[str] = (), columns: int | None = None
) -> Image.Image:
    """Pictures of one size side by side, with a line of text under each.

    Args:
        pictures: at least one.
        labels: as many as pictures, or none.
        columns: at least 1; by default as square as it goes.
    """
    if labels and len(labels) != len(pictures):
        raise InputError(f"{len(pictures)} pictures have {len(labels)} labels")
    columns = columns or int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    width, height = pictures[0].size
    gap = 4
    font = ImageFont.load_default(size=max(11, min(16, width // 10)))
    line = int(font.size * 1.5) if labels else 0  # type: ignore[union-attr]
    sheet = Image.new(
        "RGB", (columns * (width + gap) + gap, rows * (height + line + gap) + gap), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        x, y = gap + column * (width + gap), gap + row * (height + line + gap)
        sheet.paste(picture, (x, y))
        if labels:
            text = labels[i]
            while len(text) > 1 and draw.textlength(text, font=font) > width:
                text = text[:-2].rstrip("…") + "…"
            draw.text((x + width / 2, y + height + line / 2), text, "black", font, anchor="mm")
    return sheet


def output_path(
    path: str | Path, *, force: bool = False, suffixes: tuple[str, ...] = (".png",)
) -> Path:
    """A path that can be written, with a number before the suffix where a file is in the way.

    Args:
        path: with one of the suffixes, or with none to get the first of them.
        force: take the path even if there is a file.
        suffixes: those that are fine.

    Raises:
        InputError: another suffix.
        OutputError: the folder is missing or cannot be written to.
    """
    path = Path(path)
    if not path.suffix:
        path = path.with_name(path.name + suffixes[0])
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path} should end in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}")
    try:
        path.exists()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise OutputError(f"cannot write {path}: permission denied")
    if force:
        return path
    free, number = path, 1
    # A picture's manifest lies beside it under the same name.
    while free.exists() or (path.suffix == ".png" and free.with_suffix(".json").exists()):
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def write_file(path: Path, content: bytes) -> Path:
    """Writes a file whole or not at all."""
    part = path.with_name(f".featvis-{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    return path
