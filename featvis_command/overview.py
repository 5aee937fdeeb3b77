"""What `featvis --help` and `featvis --version` say, at once: JAX takes seconds to be imported."""

from __future__ import annotations

import ast
import importlib.util
import io
import os
from contextlib import redirect_stdout, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated


def commands() -> dict[str, str]:
    """Return the summaries of the commands by name, read from their source without importing it.

    A command is a function under `command(...)`, or made by `method(...)` of a driver.
    """
    drivers = {
        node.name: node
        for one in _modules("methods")
        for node in one.body
        if isinstance(node, ast.FunctionDef)
    }
    found = {}
    for node in (node for module in _modules("cli") for node in module.body):
        if isinstance(node, ast.FunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "command":
                    given = {key.arg: key.value for key in mark.keywords}
                    own = node.name.replace("_", "-")
                    name = ast.literal_eval(given["name"]) if "name" in given else own
                    found[name] = _summary(node)
        call = node.value if isinstance(node, ast.Assign) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "method":
            driver = drivers[ast.unparse(call.args[0]).rpartition(".")[2]]
            found[driver.name.replace("_", "-")] = _summary(driver)
    return found


def _summary(node: ast.FunctionDef) -> str:
    """The first line of a function's docstring."""
    return (ast.get_docstring(node) or "").partition("\n")[0]


def _modules(room: str) -> list[ast.Module]:
    """The modules of a room of featvis, parsed."""
    found = importlib.util.find_spec("featvis")
    assert found is not None
    assert found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0]) / room
    return [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py"))]


def _said_of_the_program() -> tuple[str, str]:
    """What the program says of itself, before its commands and after them."""
    calls = (
        node for one in _modules("cli") for node in ast.walk(one) if isinstance(node, ast.Call)
    )
    made = next(call for call in calls if ast.unparse(call.func) == "typer.Typer")
    told = {key.arg: key.value for key in made.keywords}
    return ast.literal_eval(told["help"]), ast.literal_eval(told["epilog"])


def overview(arguments: list[str]) -> tuple[str, int] | None:
    """Return the text that answers the arguments at once, and the exit code; None: work is due.

    Args:
        arguments: of the command line.
    """
    typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS")
    if typed is not None and {*typed.split()} & {*commands()}:
        return None  # the shell completes what a command takes, which only the command knows
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
    return text.getvalue(), 0 if arguments or typed is not None else 2


def _featvis(version: bool = False) -> None:
    """Stands for the program's own options."""


def _nothing() -> None:
    """Stands for a command whose work is elsewhere."""
