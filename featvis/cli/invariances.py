"""`featvis diverse` and `featvis invariance`: images that differ, and what a unit ignores."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from featvis import methods
from featvis.cli.command import FILES, JSON, NETWORK, QUIET, SIZE, command, option
from featvis.cli.drivers import Driver
from featvis.cli.network import network_of
from featvis.cli.output import leave, place_of, report_folder, save, tell, use_cache
from featvis.errors import InputError, printable
from featvis.files import part_of_name, picture_name
from featvis.pages.invariances import report_invariance
from featvis.pages.trade_off import trade_off_page
from featvis.results.telling import told_of

_DIVERSE = Driver(methods.diverse, presets="diversity", n="-n --images")
_SWEEP = Driver(methods.trade_off, n="-n --images")
_REPORT = Driver(report_invariance, n="-n --images")
_FOLDER = option("output", str, "The folder of the report.", "-o", "--output")


@command(
    "[MODEL] UNIT",
    *(NETWORK, SIZE, _DIVERSE.options, FILES),
    option("sweep", bool, "Trace activation against distance over weights.", "--sweep"),
    examples=(
        "efficientnet_lite0 block4:3",
        "efficientnet_lite0 block4:3 -n 9 --keep 0.9 -o differ/",
        "efficientnet_lite0 block4:3 --sweep -o curve/",
    ),
)
def diverse(given: Namespace) -> None:
    """Drive a unit with images that differ (Cadena et al. 2018)."""
    network, (unit,) = network_of(given)
    use_cache()
    if given.sweep:
        if given.keep is not None or given.weight is not None:
            raise InputError("--sweep goes over weights of its own: leave out --keep and --weight")
        if given.preset not in (next(iter(methods.presets("diversity"))), "cadena2018"):
            raise InputError(f"--sweep is of the preset cadena2018; got {printable(given.preset)}")
        folder = _folder(given, network.name, f"diverse-{part_of_name(unit)}")
        if folder.suffix:
            raise InputError(f"--sweep writes a folder; got {printable(folder)}")
        more = {} if given.contrast is None else {"contrast": given.contrast}
        curve = _SWEEP(given, network, unit, **more)
        tell(curve.told(trade_off_page(curve, folder, seed=given.seed)), given)
        return
    path = place_of(given, f"diverse {unit}", network.name)
    result = _DIVERSE(given, network, unit)
    # As replay compares it: without labels.
    tell(told_of(result, unit, save(result.save, path, given.force), given.seed), given)
    leave(result)


@command(
    "[MODEL] UNIT|LAYER",
    *(NETWORK, SIZE, _REPORT.options, _FOLDER, QUIET, JSON),
    examples=(
        "efficientnet_lite0 block4:3",
        "efficientnet_lite0 block4:3 --size 96 --natural photographs/ -o report/",
        "efficientnet_lite0 block4:0-31 --size 64 --natural photographs.index -o table/",
    ),
)
def invariance(given: Namespace) -> None:
    """Report what a unit ignores; or tabulate all units of a layer, which can be resumed."""
    network, (unit,) = network_of(given)
    use_cache()
    folder = _folder(given, network.name, f"invariance-{part_of_name(unit)}")
    tell(_REPORT(given, network, unit, folder), given)


def _folder(given: Namespace, model: str, name: str) -> Path:
    return report_folder(given.output or picture_name(model, name))
