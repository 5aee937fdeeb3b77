"""How what was made is written and told, and how a command ends."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from featvis.cache import enable_cache
from featvis.cli.command import INTERRUPTED
from featvis.errors import InputError, NonFiniteError, OutputError, printable
from featvis.files import output_path, part_of_name, picture_name, write_file
from featvis.pictures import grid, png_bytes
from featvis.results import Result
from featvis.results.places import Places
from featvis.results.telling import told_of
from featvis.told import Told

#: Pictures were written, and the unit of one of them never gave a gradient.
SILENT = 3


def use_cache() -> None:
    """Keep compiled programs in the cache folder, and say where that fails."""
    try:
        enable_cache()
    except OutputError as error:
        print(f"warning: {error}; compiling anew each time", file=sys.stderr)


def place_of(given: Namespace, what: str, model: str | None = None) -> Path:
    """Return where the one picture of a command goes, tried before anything is computed.

    Args:
        given: the command line.
        what: the picture shows; names it in a folder.
        model: the network's name, before it.
    """
    name = part_of_name(what)
    name = name if model is None else picture_name(model, name)
    return output_path(given.output or "./", name=name)


def report_folder(path: str | Path) -> Path:
    """Return the folder that a report goes into, looked at before anything is computed.

    Args:
        path: of it; made where there is none.

    Raises:
        InputError: there is a file.
    """
    folder = Path(path)
    if os.path.exists(folder) and not folder.is_dir():
        raise InputError(f"{printable(folder)} is a file: a report goes into a folder")
    return folder


def save(write: Callable[..., Path], path: Path, force: bool) -> Path:
    """Write a file; where that fails after all, into the temporary folder, and say so."""
    try:
        return write(path, force=force)
    except OutputError as error:
        spare = write(Path(tempfile.mkdtemp(prefix="featvis-")) / path.name, force=True)
        print(f"warning: {error}; written to {printable(spare)} instead", file=sys.stderr)
        return spare


@contextlib.contextmanager
def gone_on_with(place: str) -> Iterator[None]:
    """What makes something in a place; after a Ctrl-C it is said how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on with {printable(place)}") from None


def tell(told: Told, given: Namespace, **more: Any) -> None:
    """Print what is said of something: lines, or records with `more` in each."""
    records = (json.dumps({**record, **more}) for record in told.records)
    for line in records if given.json else told.lines:
        print(line, flush=True)


def leave(*made: Any) -> None:
    """End the command as what was made ended: after a Ctrl-C, or where a unit is silent."""
    if any("interrupt" in getattr(one, "stopped", ()) for one in made):
        raise typer.Exit(INTERRUPTED)
    if any(any(one.silent) for one in made):
        raise typer.Exit(SILENT)


def deliver(
    found: Iterable[tuple[Sequence[int], Result]],
    given: Namespace,
    places: Places,
    texts: Sequence[str],
    labels: Sequence[str] = (),
    measure: Callable[[Result], Result] = lambda result: result,
) -> None:
    """Write pictures and report them as they come, and their grid at the end.

    Args:
        found: numbers of pictures, and their results.
        given: the command line.
        places: where they go.
        texts: what each shows.
        labels: under the pictures of the grid; by default `texts`.
        measure: what gives a result more evidence.

    Raises:
        NonFiniteError: one did not stay finite; the pictures are written.
        typer.Exit: as `leave`; so too.
    """
    done: dict[int, Result] = {}
    for numbers, result in found:
        # All pictures of a batch are safe before anything is measured.
        results = [result] if len(numbers) == 1 else list(result)
        written = [
            save(one.save, places.pictures[number], given.force)
            for number, one in zip(numbers, results, strict=True)
        ]
        if places.film is not None and result.snapshots:
            save(result.save_animation, places.film, given.force)
        done |= dict(zip(numbers, results, strict=True))
        cut_short, before = False, len(result.evidence)
        try:
            if "interrupt" not in result.stopped and not any(result.failures):
                result = measure(result)
        except KeyboardInterrupt:
            # The pictures are there: they are reported with what is known of them.
            cut_short = True
        results = [result] if len(numbers) == 1 else list(result)
        for number, one, path in zip(numbers, results, written, strict=True):
            if len(one.evidence) > before:
                save(one.save, path, True)
            tell(told_of(one, texts[number], path, given.seed), given)
        if cut_short:
            raise typer.Exit(INTERRUPTED)
    if places.sheet is not None and len(done) > 1:
        shown = [(number, image) for number in sorted(done) for image in done[number].images]
        named = [(labels or texts)[number] for number, _ in shown]
        content = png_bytes(grid([image for _, image in shown], named))

        def write(path: Path, *, force: bool) -> Path:
            return write_file(path, content, force=force)

        sheet = save(write, places.sheet, given.force)
        tell(Told([], [f"grid  {printable(sheet)}"]), given)
    failures = [f"{texts[n]}: {f}" for n, one in done.items() for f in one.failures if f]
    if failures and not any("interrupt" in one.stopped for one in done.values()):
        raise NonFiniteError("; ".join(failures))
    leave(*done.values())
