"""What `featvis --help` and `featvis --version` say, at once: JAX takes seconds to be imported."""

from __future__ import annotations

import io
from contextlib import redirect_stdout, suppress
from importlib.metadata import version

#: The commands, each in a line that fits a terminal.
COMMANDS = {
    "models": "The networks that can be loaded by name.",
    "fetch": "Download the weights of a network.",
    "layers": "The layers of a network and how their units are written.",
    "render": "Synthesize what a unit looks for.",
    "invert": "Pictures that a layer sees as it sees yours.",
    "caricature": "Exaggerate in pictures what a layer sees in them.",
    "class-model": "Synthesize what a network takes for the most of a class.",
    "accentuate": "Change pictures towards what a unit looks for.",
    "replay": "Make a picture again, and say whether it is the same.",
}
_ENDING = (
    "Exit codes: 0 all is well; 1 a replay differs from the original; 2 a mistake in what was "
    "asked, or a NaN; 3 pictures were written, but a unit never gave a gradient and its picture "
    "shows nothing of it (a line says why); 130 Ctrl-C."
)


def overview(arguments: list[str]) -> tuple[str, int] | None:
    """The text that answers the arguments without any work, and the exit code; None: work is due.

    Args:
        arguments: of the command line.
    """
    if arguments == ["--version"]:
        return f"featvis {version('featvis')}\n", 0
    if arguments not in ([], ["--help"]):
        return None
    import typer

    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        help="See what any unit of a network looks for, reproducibly and with evidence.",
        epilog=_ENDING,
    )
    for name, summary in COMMANDS.items():
        app.command(name, help=summary)(_nothing)
    with redirect_stdout(io.StringIO()) as text, suppress(SystemExit):
        app(args=["--help"], prog_name="featvis")
    # As whoever asks for nothing is told: a mistake.
    return text.getvalue(), 0 if arguments else 2


def _nothing() -> None:
    """Stands for a command whose work is elsewhere."""
