"""Samples of a generator, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featvis.errors import InputError, printable
from featvis.evidence.similarity import Diversity
from featvis.results import Result
from featvis.told import Told


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of a generator under conditions, and what they are worth.

    Attributes:
        result: all of them; in its `evidence` are `probability`, how far each is what was asked,
            the mean over ways that the preset's transform shows it, `accepted`, and with a judge
            that has the same classes `judged`, whether it says so too.
        names: what was asked, a name a set.
        sets: the set of each sample, (n,).
        diversity: of the accepted samples of each set, None where there are fewer than 2.
    """

    result: Result
    names: tuple[str, ...]
    sets: np.ndarray
    diversity: tuple[Diversity | None, ...]

    @property
    def images(self) -> np.ndarray:
        """The accepted samples, (k, h, w, c)."""
        return self.result.images[self.accepted]

    @property
    def accepted(self) -> np.ndarray:
        """Whether each sample is kept, (n,) bool."""
        return np.asarray(self.result.evidence["accepted"], bool)

    @property
    def acceptance(self) -> float:
        """The share of samples that is kept."""
        return float(self.accepted.mean())

    def of(self, name: str) -> np.ndarray:
        """The accepted samples of a set, (k, h, w, c).

        Args:
            name: of the set, one of `names`.

        Raises:
            InputError: no set of that name.
        """
        if name not in self.names:
            raise InputError(
                f"there are samples of {', '.join(map(repr, self.names))}; got {name!r}"
            )
        return self.result.images[self.accepted & (self.sets == self.names.index(name))]

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Writes all samples as `Result.save` does, a row a set where there are several.

        Args:
            path: as for `Result.save`.
            force: write over an existing file.

        Returns:
            The path of the PNG as it was written.

        Raises:
            InputError: as `Result.save`.
            OutputError: likewise.
        """
        columns = int((self.sets == 0).sum()) if len(self.names) > 1 else None
        return self.result.save(path, columns=columns, force=force)

    def told(self, image: Path) -> Told:
        """What the command line says of the samples.

        Args:
            image: where they were written.
        """
        record = {
            "image": str(image),
            "acceptance": self.acceptance,
            "accepted": self.accepted.tolist(),
            "seconds": round(self.result.seconds, 3),
            "sets": self.summary(),
        }
        lines = []
        for of, figures in self.summary().items():
            said = (f"{key.replace('_', ' ')} {value:.3g}" for key, value in figures.items())
            lines.append(f"{printable(of)}  {', '.join(said)}")
        return Told([record], [*lines, f"pictures  {printable(image)}"])

    def summary(self) -> dict[str, Any]:
        """The figures, plain data."""
        found = {}
        for number, name in enumerate(self.names):
            own, apart = self.sets == number, self.diversity[number]
            found[name] = {
                "samples": int(own.sum()),
                "acceptance": float(self.accepted[own].mean()),
                "probability": float(np.mean(self.result.evidence["probability"][own])),
            }
            if "judged" in self.result.evidence:
                found[name]["judged"] = float(np.mean(self.result.evidence["judged"][own]))
            if apart is not None:
                named = {"ms_ssim": apart.ms_ssim, "distance": apart.distance}
                found[name] |= {k: v for k, v in named.items() if np.isfinite(v)}
        return found
