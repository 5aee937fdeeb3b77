"""What an attribution gives: maps, what was measured, how they were made; and their files."""

from __future__ import annotations

import dataclasses
import functools
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featvis import checks
from featvis.attribution.options import plain
from featvis.attribution.overlay import sheet
from featvis.digests import digest_of
from featvis.errors import InputError, printable
from featvis.files import output_path, part_of_name, picture_name, write_file
from featvis.models import Model
from featvis.models.leaky import leak_of
from featvis.pictures import address_of
from featvis.results.manifest import versions
from featvis.results.packing import png_of
from featvis.told import Told
from objectives import Objective, alone, separable

#: The layout of an explanation's manifest.
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of images, and all that is known of them.

    `explanation[i]` is that of one image alone, `len(explanation)` their number.

    Attributes:
        maps: (n, h, w) float32; signed where the method is: above 0 for the unit, below against.
        metrics: what was measured of each map, by name; each an array (n,).
        images: (n, h, w, c) float32 in [0, 1], as the network saw them.
        model: the network, or the function.
        objective: what is explained; of a function None or the number of its score.
        method: its name.
        options: of the method, all of them.
        seed: of what it drew.
        silent: for each image None, or why its unit gives no gradient.
        seconds: it took, compiling included.
        places: of the images in the batch that was explained; None: all in their order.
    """

    maps: np.ndarray
    metrics: Mapping[str, np.ndarray]
    images: np.ndarray
    model: Any
    objective: Objective | int | None
    method: str
    options: Mapping[str, Any]
    seed: int
    silent: tuple[str | None, ...]
    seconds: float
    places: tuple[int, ...] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: int) -> Explanation:
        if not isinstance(index, (int, np.integer)) or isinstance(index, bool):
            raise InputError(
                f"explanation[i] is that of one image, from 0 to {len(self) - 1}; got "
                f"{printable(repr(index), 60)}"
            )
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        place = int(index) % len(self)
        own = self.objective
        if isinstance(own, Objective):
            if len(self) > 1 and not separable(own):
                raise InputError(f"{own} is of all images together: no map has one of its own")
            own = alone(own, place)
        part = slice(place, place + 1)
        return dataclasses.replace(
            self,
            maps=self.maps[part],
            metrics={name: values[part] for name, values in self.metrics.items()},
            images=self.images[part],
            objective=own,
            silent=self.silent[part],
            places=((self.places or range(len(self)))[place],),
        )

    def __iter__(self) -> Iterator[Explanation]:
        return (self[i] for i in range(len(self)))

    @functools.cached_property
    def scores(self) -> np.ndarray:
        """The unit's scores of the images, (n,)."""
        from featvis.attribution.explain import scores_of

        return scores_of(self.model, self.objective, self.images)

    def with_metrics(self, **measured: Any) -> Explanation:
        """The same with more metrics: what was `measured`, arrays (n,) by name.

        Raises:
            InputError: what is no number an image.
        """
        added = {
            name: checks.real_array(f"the metric {name}", values, np.float64)
            for name, values in measured.items()
        }
        for name, values in added.items():
            if values.shape != (len(self),):
                raise InputError(
                    f"the metric {name} is a number an image, ({len(self)},); got {values.shape}"
                )
        return dataclasses.replace(self, metrics={**self.metrics, **added})

    def picture(self) -> Image.Image:
        """Each picture and, beside it, its map over it.

        Yellow is for the unit and blue against it; opacity is the value's size over the 99th
        percentile of sizes in its map, at most 1.
        """
        return sheet(self.images, self.maps, [self._told(i) for i in range(len(self))])

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Writes `picture()` as PNG with the manifest inside, and a JSON with the figures beside.

        Args:
            path: a file's, which ends in .png, or has no suffix and gets it; or a folder's, which
                ends in a slash and is made, or is there: network, unit and method name the picture.
            force: write over an existing file; else the new one gets a number.

        Returns:
            The path of the PNG as it was written.

        Raises:
            OutputError: it cannot be written.
            InputError: another suffix.

        Warns:
            NameTakenWarning: there was a file of that name; says the new one's.
        """
        name = picture_name(self._network, part_of_name(f"{self.objective}-{self.method}"))
        path = output_path(path, name=name)
        content = png_of(self.picture(), self.manifest)
        text = json.dumps({**self.manifest, "result": self.summary()}, indent=1) + "\n"
        return write_file(path, content, beside={".json": text.encode()}, force=force)

    @property
    def manifest(self) -> Mapping[str, Any]:
        """All that says how the maps were made, plain data."""
        model = self.model
        known = isinstance(model, Model)
        return {
            "explanation": FORMAT,
            "model": {
                "name": self._network,
                "digest": model.digest if known else None,
                "origin": model.origin if known else "a function of images",
                "leak": leak_of(model) if known else None,
            },
            "objective": str(self.objective),
            "method": self.method,
            "options": {name: plain(value) for name, value in self.options.items()},
            "seed": self.seed,
            "images": [digest_of(image) for image in self.images],
            "places": list(self.places or range(len(self))),
            "versions": versions(),
        }

    def summary(self) -> dict[str, Any]:
        """The figures, plain data."""
        return {
            "score": _finite(self.scores),
            "metrics": {name: _finite(values) for name, values in self.metrics.items()},
            "silent": list(self.silent),
            "seconds": round(self.seconds, 3),
        }

    def told(self, unit: str, files: Sequence[str], picture: Path) -> Told:
        """What the command line says of the maps.

        Args:
            unit: what is explained, as it was written.
            files: of the images.
            picture: where it was written.
        """
        known = self.summary()
        records, lines = [], []
        for place, file in enumerate(files):
            figures = {name: values[place] for name, values in known["metrics"].items()}
            record = {
                "objective": unit,
                "method": self.method,
                "image": file,
                "picture": str(picture),
                "score": known["score"][place],
                **figures,
                "silent": known["silent"][place],
                "seconds": round(self.seconds / len(files), 3),
            }
            records.append(record)
            facts = [f"score {record['score']:.4g}"]
            for name, value in figures.items():
                shown = "not finite" if value is None else f"{value:.3g}"
                facts.append(f"{name.replace('_', ' ')} {shown}")
            facts += ["no gradient"] if record["silent"] is not None else []
            lines.append(f"{printable(unit)}  {printable(file)}  {', '.join(facts)}")
        lines.append(f"{self.method}, {self.seconds:.1f} s  {printable(picture)}")
        return Told(records, lines)

    @property
    def _network(self) -> str:
        if isinstance(self.model, Model):
            return self.model.name
        return str(getattr(self.model, "__name__", type(self.model).__name__))

    def _told(self, place: int) -> str:
        """What a picture's label says."""
        said = [f"score {self.scores[place]:.4g}"]
        said += [
            f"{name.replace('_', ' ')} {values[place]:.3g}"
            for name, values in self.metrics.items()
            # Of controls the figures are in the summary.
            if not name.endswith(("_random", "_centre"))
        ]
        if self.silent[place] is not None:
            said.append("no gradient")
        return ", ".join(said)

    def __repr__(self) -> str:
        height, width = self.maps.shape[1:]
        return f"Explanation({self.objective} by {self.method}, {len(self)} x {height}x{width})"

    def _repr_html_(self) -> str:
        """Pictures and figures, as a notebook shows them."""
        cells = []
        for i in range(len(self)):
            data = address_of(sheet(self.images[i : i + 1], self.maps[i : i + 1], [""]))
            said = self._told(i) if self.silent[i] is None else f"no gradient: {self.silent[i]}"
            cells.append(
                f'<figure style="display:inline-block;margin:4px">'
                f'<img alt="map {i}" src="{data}">'
                f"<figcaption>{html.escape(said)}</figcaption></figure>"
            )
        title = html.escape(f"{self.objective} of {self._network} by {self.method}"[:200])
        return f"<div><code>{title}</code><br>{''.join(cells)}</div>"


def _finite(values: np.ndarray) -> list[float | None]:
    """As a list, with None for what JSON has no number for."""
    return [float(value) if np.isfinite(value) else None for value in values]
