"""What commands share: the network, the options of a run, the files, each written once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from featvis.results.run import options_of_runs

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="See what any unit of a network looks for, reproducibly and with evidence.",
    epilog="Exit codes: 0 all is well; 1 a replay differs from the original; 2 a mistake in what "
    "was asked, or a NaN; 3 pictures were written, but a unit never gave a gradient and its "
    "picture shows nothing of it (a line says why); 130 Ctrl-C.",
)

#: Options by the name that commands know them by: their type and how they are written.
NETWORK = {
    "place": Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="PACKAGE.MODULE:FACTORY",
            help="Where the function is that makes your own network, in place of MODEL.",
        ),
    ],
    "weights": Annotated[
        str | None,
        typer.Option(
            help="A file of weights (.safetensors, .pth, .npz), or one of the Hugging Face hub, "
            "hf://owner/repository@revision/path; after a # the part of it, as in run.pth#ema."
        ),
    ],
}
SIZE = {
    "size": Annotated[
        str | None, typer.Option(help="Height x width in pixels, as 160x224, or 160.")
    ]
}
RUN: dict[str, Any] = {
    "param": Annotated[
        str | None, typer.Option(help="Parameterization: fourier, pixels, 'Fourier(decay=1.5)', …")
    ]
}
#: How the defaults of options are shown that no preset decides.
_SHOWN: dict[str, bool | str] = {"seed": True, "patience": False}
for _name, _field in options_of_runs().items():
    _kind, _help = _field.metadata["typed"], _field.metadata["help"]
    _default = _SHOWN.get(_name, "the preset's own")
    if _kind is not None:
        RUN[_name] = Annotated[_kind | None, typer.Option(help=_help, show_default=_default)]
JSON = {"as_json": Annotated[bool, typer.Option("--json", help="Print a line of JSON a result.")]}
QUIET = {"quiet": Annotated[bool, typer.Option("--quiet", help="No progress bar.")]}
FILES = {
    "output": Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Where the picture goes; a folder for several."),
    ],
    "force": Annotated[bool, typer.Option("--force", help="Write over existing files.")],
    **QUIET,
    **JSON,
}
ANIMATE = {
    "animate": Annotated[
        Path | None, typer.Option(help="Write the way there as an animated .webp or .gif.")
    ]
}


def command(
    *shared: dict[str, Any], name: str | None = None, preset: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a function a command, with shared options after its own.

    The function gets those in its last argument, `given`, by name.

    Args:
        *shared: groups of options.
        name: of the command; by default the function's.
        preset: names of recipes, of which the first is the default; none: no such option.
    """
    options = {name: kind for group in shared for name, kind in group.items()}
    if preset:
        listed = ", ".join(preset)
        options["preset"] = Annotated[str, typer.Option(help=f"The paper's recipe: {listed}.")]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        plain = inspect.signature(function, eval_str=True)
        own = [p for p in plain.parameters.values() if p.name != "given"]
        defaults = {
            "preset": preset[0] if preset else None,
            "seed": options_of_runs()["seed"].default,
        }
        added = [
            inspect.Parameter(
                option,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=kind,
                default=defaults.get(option, False if kind.__origin__ is bool else None),
            )
            for option, kind in options.items()
        ]

        @functools.wraps(function)
        def call(**values: Any) -> None:
            given = SimpleNamespace(**{option: values.pop(option) for option in options})
            function(**values, given=given)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + added
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(name)(call)
        return call

    return decorate


def run_options(given: SimpleNamespace) -> dict[str, Any]:
    """What the command line says of a run: the options that are given."""
    named = {name: getattr(given, name) for name in RUN if name != "param"}
    return {name: value for name, value in named.items() if value is not None}


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"featvis {version('featvis')}")
        raise typer.Exit


@app.callback()
def _featvis(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    pass
