"""What `featvis --help` and `featvis --version` say, at once: JAX takes seconds to be imported."""

from __future__ import annotations

import ast
import importlib.util
import io
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

_ENDING = (
    "Exit codes: 0 all is well; 1 a replay differs from the original; 2 a mistake in what was "
    "asked, or a NaN; 3 pictures were written, but a unit never gave a gradient and its picture "
    "shows nothing of it (a line says why); 130 Ctrl-C."
)


def commands() -> dict[str, str]:
    """The summaries of the commands by name, read from their functions without importing them."""
    found = importlib.util.find_spec("featvis")
    assert found is not None
    assert found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0]) / "cli"
    return dict(
        named
        for path in sorted(folder.glob("*.py"))
        for named in _commands_of(ast.parse(path.read_text(encoding="utf-8")))
    )


def _commands_of(module: ast.Module) -> Iterator[tuple[str, str]]:
    for node in module.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if not (isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "command"):
                continue
            given = {key.arg: key.value for key in mark.keywords}
            name = ast.literal_eval(given["name"]) if "name" in given else node.name
            summary, _, _ = (ast.get_docstring(node) or "").partition("\n")
            yield name, summary


def overview(arguments: list[str]) -> tuple[str, int] | None:
    """The text that answers the arguments without any work, and the exit code; None: work is due.

    Args:
        arguments: of the command line.
    """
    if arguments == ["--version"]:
        return f"featvis {version('featvis')}\n", 0
    if arguments not in ([], ["--help"], ["-h"]):
        return None
    import typer

    said = typer.Option("--version", help="Say the version.")
    _featvis.__annotations__["version"] = Annotated[bool, said]
    app = typer.Typer(
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="See what any unit of a network looks for, reproducibly and with evidence.",
        epilog=_ENDING,
    )
    for name, summary in commands().items():
        app.command(name, help=summary, short_help=summary)(_nothing)
    app.callback()(_featvis)
    with redirect_stdout(io.StringIO()) as text, suppress(SystemExit):
        app(args=["--help"], prog_name="featvis")
    # As whoever asks for nothing is told: a mistake.
    return text.getvalue(), 0 if arguments else 2


def _featvis(version: bool = False) -> None:
    """Stands for the program's own options."""


def _nothing() -> None:
    """Stands for a command whose work is elsewhere."""
