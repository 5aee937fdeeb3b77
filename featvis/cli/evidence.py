"""What commands measure on the pictures that they made, where they are asked to."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from featvis.cli.command import option
from featvis.cli.drivers import Driver
from featvis.cli.network import load_network
from featvis.errors import InputError, printable
from featvis.evidence.asked import Asked
from featvis.models import Model
from objectives import Objective

_ASKED = Driver(Asked, group="Evidence")
JUDGES = option(
    "judge", list[str], "Another network, which says whether it recognises the class: a name as "
    "MODEL has it, and after = a file of its weights. May be given several times.",
    group="Evidence", metavar="MODEL[=WEIGHTS]",
)  # fmt: skip
EVIDENCE = _ASKED.options | JUDGES


def asked(given: Namespace, network: Model, objectives: Sequence[Objective]) -> Asked:
    """Return what is to be measured, checked before anything is computed."""
    judges = [_judge(text) for text in given.judge or ()]
    found: Asked = _ASKED(given, network, objectives, judges=judges)
    return found


def _judge(text: str) -> Model:
    name, given, weights = text.partition("=")
    if not name or (given and not weights):
        raise InputError(f"--judge takes MODEL or MODEL=WEIGHTS; got {printable(repr(text))}")
    return load_network(name, weights or None)
