"""What is to be measured on pictures, checked before the first of them is made."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from featvis.errors import InputError, printable
from featvis.evidence.natural import comparable, compare_with_natural
from featvis.evidence.recognition import classes_of, places_of, recognition
from featvis.evidence.seeds import vary_seed
from featvis.evidence.trust import trust
from featvis.images import read_batches
from featvis.models import Model
from featvis.natural.store import is_index
from featvis.own_pictures import natural_files
from featvis.results import Result
from objectives import Objective


class Asked:
    """What is asked for, of any number of results.

    Args:
        network: the one explained.
        objectives: what is maximised.
        evidence: a folder of natural images to compare the unit's response with, or an index of
            some (see `featvis index`).
        trust: a folder of natural images, to ask whether the picture is processed as those are
            that excite the unit, and whether it depends on where it began.
        seeds: how many are run, for the mean and the spread of their scores.
        judges: networks that say whether they recognise the class.
        progress: show progress bars.

    Raises:
        InputError: a folder without pictures, an objective that has no natural score, seeds below
            2, or a judge of other classes.
    """

    def __init__(
        self,
        network: Model,
        objectives: Sequence[Objective],
        *,
        evidence: str | None = None,
        trust: str | None = None,
        seeds: int | None = None,
        judges: Sequence[Model] = (),
        progress: bool = True,
    ) -> None:
        self.evidence, self.trust, self.seeds = evidence, trust, seeds
        self.judges, self.progress = judges, progress
        takes = network.input
        for folder, or_index in ((evidence, True), (trust, False)):
            if folder is None:
                continue
            for unit in objectives:
                comparable(unit)
            if or_index and is_index(folder):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they come when all are read
                first = read_batches(natural_files(folder), takes.size, takes.channels, 1)
                if next(first, None) is None:
                    raise InputError(f"no picture in {printable(folder)} can be read")
        if seeds is not None and seeds < 2:
            raise InputError(f"--seeds must be 2 or more; got {seeds}")
        for judge in judges:
            for unit in objectives:
                places_of(network, judge, classes_of(unit, unit.batch_size or 1))

    def __call__(self, result: Result) -> Result:
        """Return the result with all that was asked for."""
        if self.judges:
            result = recognition(result, self.judges)
        if self.evidence is not None:
            result = compare_with_natural(result, self.evidence)
        if self.seeds is not None:
            result = vary_seed(result, self.seeds, progress=self.progress)
        if self.trust is not None:
            result = trust(result, self.trust, progress=self.progress)
        return result
