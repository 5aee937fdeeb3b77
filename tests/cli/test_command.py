"""The command `featvis` as a process: Ctrl-C at any moment, and streams that take nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from featvis.cli.app import load_commands
from featvis_command.console import UNHEARD, Output
from featvis_command.overview import commands, overview

ROOT = Path(__file__).parents[2]

#: What a child does first: Ctrl-C does what it does in a terminal, and featvis is not imported.
BEGIN = """
import atexit, os, signal, sys, time, types
sys.argv[1:] = ["models"]
signal.signal(signal.SIGINT, signal.default_int_handler)

def press():
    os.kill(os.getpid(), signal.SIGINT)

featvis = sys.modules["featvis"] = types.ModuleType("featvis")
featvis.cli = types.SimpleNamespace(main=lambda: 0)
import featvis_command
"""


def child(script, **options):
    """Exit code, output and errors of a process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | options.pop("env", {})
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-c", script] if isinstance(script, str) else script
    done = subprocess.run(
        command, env=environment, text=True, timeout=300, stdin=subprocess.DEVNULL, **options
    )
    return done.returncode, done.stdout, done.stderr


INTERRUPTED = {
    # JAX swallows it in its callbacks.
    "while JAX is imported": """
class Finder:
    def find_spec(name, *where):
        if name == "featvis":
            try:
                press()
                time.sleep(60)
            except BaseException:
                pass

del sys.modules["featvis"]
sys.meta_path.insert(0, Finder)
""",
    "at work": """
def work():
    press()
    time.sleep(60)
featvis.cli.main = work
""",
    # Not only once what the process waits for is over: then it would have ended well.
    "in a callback": """
class Callback:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def work():
    Callback()
    began = time.monotonic()
    try:
        time.sleep(60)
    finally:
        if time.monotonic() - began > 50:
            os._exit(0)
featvis.cli.main = work
""",
    "when all is done": "atexit.register(press)",
}


@pytest.mark.parametrize("moment", INTERRUPTED)
def test_ctrl_c_at_any_moment(moment):
    end = "\nsys.exit(featvis_command.main())"
    assert child(BEGIN + INTERRUPTED[moment] + end) == (130, "", "interrupted\n")


def test_a_ctrl_c_that_is_ignored_stays_so():
    # As under `nohup`.
    script = BEGIN + "signal.signal(signal.SIGINT, signal.SIG_IGN)\nfeatvis.cli.main = press\n"
    assert child(script + "sys.exit(featvis_command.main())") == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "begins", "code"),
    [(["--version"], "featvis ", 0), (["--help"], "Usage: featvis ", 0), ([], "Usage: ", 2)],
)
def test_what_it_is_and_can_takes_no_jax(arguments, begins, code):
    script = (
        f"import sys, featvis_command as c; sys.argv[1:] = {arguments}; code = c.main(); "
        "sys.exit('jax is imported' if 'jax' in sys.modules else code)"
    )
    ended, said, errors = child(script)
    assert (ended, errors) == (code, "")
    assert said.startswith(begins)


def test_the_overview_has_every_command_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text, _ = overview(["--help"])
    said = " ".join(text.split())
    assert all(f" {name} {summary} " in said for name, summary in commands().items())
    assert {*typer.main.get_command(load_commands()).list_commands(None)} == {*commands()}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ({"COMP_WORDS": "featvis ren", "COMP_CWORD": "1"}, "render"),
        ({"COMP_WORDS": "featvis render --opti", "COMP_CWORD": "2"}, "--optimizer"),
    ],
)
def test_a_shell_completes_commands_and_their_options(typed, wanted):
    script = "import sys, featvis_command as c; sys.argv = ['featvis']; sys.exit(c.main())"
    asked = {"_FEATVIS_COMPLETE": "complete_bash", **typed}
    assert child(script, env=asked) == (0, f"{wanted}\n", "")


@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_nobody_listens_to_what_takes_no_jax(arguments):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "featvis_command", arguments]
    code, _, errors = child(command, stdout=write)
    os.close(write)
    assert (code, errors) == (UNHEARD, "")
    with open("/dev/full", "w") as full:
        code, _, errors = child(command, stdout=full)
    assert code == 2
    assert "No space left" in errors


def test_files_never_have_the_numbers_of_closed_streams():
    script = BEGIN + (
        "featvis.cli.main = lambda: open(os.devnull).fileno() < 3 or sys.stderr is None\n"
        "sys.exit(featvis_command.main())"
    )
    shell = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, script]
    assert child(shell)[0] == 0


def test_nobody_listens():
    # As in `featvis models | head -1`, when head is done.
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "featvis_command", "models"]
    code, _, errors = child(command, stdout=write)
    os.close(write)
    assert (code, errors) == (UNHEARD, "")


class Full:
    """A stream on a disk that is full."""

    encoding, closed = "utf-8", False

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    flush = write


@pytest.mark.parametrize(
    ("stream", "code", "reason"),
    [
        (None, 2, "it is closed"),
        (Full(OSError(28, "No space left on device")), 2, "No space left on device"),
        (Full(ValueError("I/O operation on closed file")), 2, "I/O operation on closed file"),
        (Full(BrokenPipeError(32, "Broken pipe")), UNHEARD, ""),
    ],
    ids=["closed", "full", "a closed file", "a broken pipe"],
)
def test_lines_that_nothing_takes_stop_no_work(capsys, stream, code, reason):
    output = Output(stream)
    for _ in range(2):
        print("block2:3", file=output, flush=True)
    assert output.exit_code(0) == code
    assert output.exit_code(130) == 130
    errors = capsys.readouterr().err
    assert reason in errors
    assert len(errors.splitlines()) == (code == 2)


def test_characters_that_a_stream_has_no_code_for(tmp_path):
    with open(tmp_path / "lines", "w", encoding="ascii") as stream:
        output = Output(stream)
        print("Löwe 160×224", file=output)
        assert output.exit_code(0) == 0
    assert (tmp_path / "lines").read_text() == "L\\xf6we 160\\xd7224\n"


def test_nothing_to_say_needs_no_stream():
    assert Output(None).exit_code(0) == 0
