"""`featvis render`: what a unit looks for."""

from __future__ import annotations

from argparse import Namespace

from featvis import methods
from featvis import text as texts
from featvis.cli.command import FILES, NETWORK, SIZE, command, option, run_options
from featvis.cli.evidence import EVIDENCE, Measures
from featvis.cli.network import network_of
from featvis.cli.output import deliver, label, options_of, plan, use_cache
from featvis.errors import InputError
from featvis.files import part_of_name
from featvis.results.run import options_of_runs
from featvis.synthesis import synthesize_many
from objectives import parse

_BATCH = option("batch", int, options_of_runs()["batch"].metadata["help"])


@command(
    "[MODEL] OBJECTIVE...",
    *(NETWORK, SIZE, _BATCH, EVIDENCE, run_options("visualization"), FILES),
    examples=(
        "efficientnet_lite0 block8:3",
        "efficientnet_lite0 block8:3@7,7 logits:285 'block4:0 - 0.1*tv' --size 160 -o units/",
        "efficientnet_lite0 block8:3 --evidence photographs/ --seeds 4 --json",
        "efficientnet_lite0 logits:285 --judge mobilenet_v2",
        "--model mypackage.nets:factory blocks_3/conv2:5",
    ),
)
def render(given: Namespace) -> None:
    """Synthesize what a unit looks for; several objectives give a picture each and a grid."""
    use_cache()
    network, objectives = network_of(given)
    parsed = [parse(text, network.layers, network.class_index) for text in objectives]
    options = options_of(given, network)
    size, way = options.pop("size"), options.pop("parameterization")
    takes = network.input

    def accepts(other: tuple[int, int]) -> bool:
        try:
            network.layers(other)
        except (InputError, TypeError, ValueError):
            return False
        return True

    seen = methods.Setting(
        size or takes.size, takes.channels, 1.0, 1.0, True, options.pop("steps", None), accepts
    )
    (stage,) = methods.chosen("render", "visualization", given.preset, {})(seen).stages
    if way is not None:
        way = texts.parameterization(way, seen.size, takes.channels, fixed_size=size is not None)
    options = {**stage.options, "batch": given.batch, **options, "steps": stage.steps}
    found = synthesize_many(network, parsed, way or stage.parameterization, **options)
    measures = Measures(given, network, parsed)
    if given.animate is not None and len(parsed) > 1:
        raise InputError(f"--animate takes one objective; got {len(parsed)}")

    files = plan(given, network, objectives, [part_of_name(str(one)) for one in parsed])
    files.labels = [label(one, network) for one in parsed]
    deliver(found, given, files, measures)
