"""The command line: all commands of this folder, and how a mistake ends."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from featvis import cli, limits
from featvis.cli.command import INTERRUPTED, app
from featvis.errors import FeatvisError, printable
from objectives import ObjectiveError


def _show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    print(f"warning: {printable(message, 2000)}", file=sys.stderr)


def load_commands() -> typer.Typer:
    """Return the program with all its commands: those of every module of this folder."""
    for module in pkgutil.iter_modules(cli.__path__):
        importlib.import_module(f"{cli.__name__}.{module.name}")
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; a mistake of the user is one line and exit code 2.

    Args:
        arguments: by default those of the process.

    Returns:
        The exit code.
    """
    load_commands()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            app(args=None if arguments is None else list(arguments))
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except (FeatvisError, ObjectiveError) as error:
        message = str(error)
    except KeyboardInterrupt as interrupt:
        # Whoever can be gone on with says how.
        print(": ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        # What the machine refuses where nobody thought of it: a folder that is gone, a full table.
        place = f": {error.filename}" if error.filename else ""
        message = f"{error.strerror or error}{place}"
    except (MemoryError, RuntimeError) as error:
        if limits.exhausted(error):
            message = "the memory ran out: smaller images, or fewer of them, take less"
        elif "backend" in str(error):  # JAX has no type for it
            message = f"JAX finds no such device: {str(error).splitlines()[0]}"
        else:
            raise
    # A text that does not fit shows its place in lines of its own.
    shown = "\n".join(printable(line, 2000) for line in message.split("\n"))
    print(f"error: {shown}", file=sys.stderr)
    return 2
