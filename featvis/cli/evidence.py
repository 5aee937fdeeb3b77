"""What commands measure on the pictures that they made, where they are asked to."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Sequence

from featvis.cli.command import option
from featvis.cli.network import load_network
from featvis.errors import InputError, printable
from featvis.evidence import compare_with_natural, recognition, trust, vary_seed
from featvis.evidence.natural import comparable
from featvis.evidence.recognition import classes_of, places_of
from featvis.images import read_batches
from featvis.models import Model
from featvis.natural.store import is_index
from featvis.own_pictures import natural_files
from featvis.results import Result
from objectives import Objective

_EVIDENCE = "Evidence"
JUDGES = option(
    "judge", list[str], "Another network, which says whether it recognises the class: a name as "
    "MODEL has it, and after = a file of its weights. May be given several times.",
    group=_EVIDENCE, metavar="MODEL[=WEIGHTS]",
)  # fmt: skip
EVIDENCE = {
    **option(
        "evidence", str, "A folder of natural images to compare the unit's response with, or an "
        "index of some (see `featvis index`).",
        group=_EVIDENCE,
    ),
    **option(
        "trust", str, "A folder of natural images: is the picture processed as those are that "
        "excite the unit, and does it depend on where it began?", group=_EVIDENCE,
    ),
    **option(
        "seeds", int, "Run so many seeds and give the scores' mean and spread.", group=_EVIDENCE
    ),
    **JUDGES,
}  # fmt: skip


class Measures:
    """What is asked for, checked before anything is computed.

    Args:
        given: the command line.
        network: the one explained.
        objectives: what is maximised.

    Raises:
        InputError: a folder without pictures, an objective that has no natural score, seeds below
            2, or a judge that there is not.
    """

    def __init__(self, given: Namespace, network: Model, objectives: Sequence[Objective]) -> None:
        self.given = given
        takes = network.input
        for name in ("evidence", "trust"):
            folder = getattr(given, name, None)
            if folder is None:
                continue
            for unit in objectives:
                comparable(unit)
            if name == "evidence" and is_index(folder):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they come when all are read
                first = read_batches(natural_files(folder), takes.size, takes.channels, 1)
                if next(first, None) is None:
                    raise InputError(f"no picture in {printable(folder)} can be read")
        seeds = getattr(given, "seeds", None)
        if seeds is not None and seeds < 2:
            raise InputError(f"--seeds must be 2 or more; got {seeds}")
        self.judges = [_judge(text) for text in given.judge or ()]
        for judge in self.judges:
            for unit in objectives:
                places_of(network, judge, classes_of(unit, unit.batch_size or 1))

    def __call__(self, result: Result) -> Result:
        """The result with all that was asked for."""
        given, show = self.given, not self.given.quiet
        if self.judges:
            result = recognition(result, self.judges)
        if getattr(given, "evidence", None) is not None:
            result = compare_with_natural(result, given.evidence)
        if getattr(given, "seeds", None) is not None:
            result = vary_seed(result, given.seeds, progress=show)
        if getattr(given, "trust", None) is not None:
            result = trust(result, given.trust, progress=show)
        return result


def _judge(text: str) -> Model:
    name, _, weights = text.partition("=")
    if not name:
        raise InputError(f"--judge takes MODEL or MODEL=WEIGHTS; got {printable(repr(text))}")
    return load_network(name, weights or None)
