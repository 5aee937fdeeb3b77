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


def commands() -> dict[str, str]:
    """The summaries of the commands by name, read from their functions without importing them."""
    return dict(named for module in _modules() for named in _commands_of(module))


def _modules() -> list[ast.Module]:
    """The modules of the command line, parsed."""
    found = importlib.util.find_spec("featvis")
    assert found is not None
    assert found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0]) / "cli"
    return [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py"))]


def _said_of_the_program() -> tuple[str, str]:
    """What the program says of itself, before its commands and after them."""
    calls = (node for one in _modules() for node in ast.walk(one) if isinstance(node, ast.Call))
    made = next(call for call in calls if ast.unparse(call.func) == "typer.Typer")
    told = {key.arg: key.value for key in made.keywords}
    return ast.literal_eval(told["help"]), ast.literal_eval(told["epilog"])


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
    before, after = _said_of_the_program()
    app = typer.Typer(
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=before,
        epilog=after,
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
