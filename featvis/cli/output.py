"""What a command is asked to do, where its pictures go, and how they are told."""

from __future__ import annotations

import io
import json
import sys
import tempfile
import unicodedata
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import typer

from featvis import text as texts
from featvis.cache import enable_cache
from featvis.cli.command import INTERRUPTED
from featvis.cli.network import see_working_folder, size_of
from featvis.errors import InputError, NonFiniteError, OutputError, printable
from featvis.files import (
    is_folder,
    name_limit,
    output_path,
    picture_name,
    shorten_name,
    write_file,
)
from featvis.models import Model
from featvis.pictures import grid, to_picture
from featvis.results import Result
from featvis.results.run import options_of_runs
from objectives import Logit, LogProbability, Probability

#: Snapshots of an animation.
FRAMES = 24
#: Pictures were written, and the unit of one of them never gave a gradient.
SILENT = 3


def use_cache() -> None:
    """Keep compiled programs in the cache folder, and say where that fails."""
    try:
        enable_cache()
    except OutputError as error:
        print(f"warning: {error}; compiling anew each time", file=sys.stderr)


def options_of(given: Namespace, network: Model) -> dict[str, Any]:
    """Return what the command line says of a run, in the words of Python: `size` too."""
    size, takes = size_of(given.size, network), network.input
    if given.param is not None:
        see_working_folder()  # for a generator of one's own
        texts.parameterization(
            given.param, size or takes.size, takes.channels, fixed_size=size is not None
        )
    if given.steps is not None and given.steps < 1:
        raise InputError(f"--steps must be an integer of at least 1; got {given.steps}")
    frames = min(given.steps or FRAMES, FRAMES) if given.animate else 0
    named = {name: getattr(given, name, None) for name in options_of_runs()}
    named |= {"size": size, "parameterization": given.param, "progress": not given.quiet}
    kept = {name: value for name, value in named.items() if value is not None or name == "size"}
    return {"parameterization": None, **kept, "snapshots": frames}


@dataclass
class Files:
    """Where the pictures of a command go, in their order.

    Attributes:
        texts: what each shows, as reports have it.
        pictures: paths of the PNGs.
        sheet: of several pictures' grid; None for one.
        film: of the animation; None where there is none.
        labels: under the pictures of the grid; by default `texts`.
    """

    texts: Sequence[str]
    pictures: list[Path]
    sheet: Path | None
    film: Path | None
    labels: Sequence[str] = field(default_factory=list)


def plan(given: Namespace, network: Model, said: Sequence[str], names: Sequence[str]) -> Files:
    """Return where each picture goes, tried before anything is computed.

    Args:
        given: the command line.
        network: names pictures in a folder.
        said: what each picture shows, as reports have it.
        names: the same as parts of files' names.
    """
    film = None
    if given.animate is not None:
        named = picture_name(network.name, names[0] if len(names) == 1 else "way")
        film = output_path(given.animate, (".webp", ".gif"), name=named)
    output = given.output or "./"
    before = picture_name(network.name, "") if is_folder(output) else ""
    sheet = output_path(output, name=f"{before}grid")
    if len(names) == 1 and not before:
        return Files(said, [sheet], None, film)
    before = before or f"{sheet.stem}-"
    # Room for a number and for the longest suffix.
    room = name_limit(sheet.parent) - len("-9999.json")
    taken: set[str] = set()
    paths = []
    for name in names:
        stem, number = shorten_name(before + name, room), 1
        # Some file systems take a and A, or two ways to write é, for one name.
        while (key := unicodedata.normalize("NFC", stem).casefold()) in taken:
            tail = f"-{number}"
            stem, number = shorten_name(before + name, room - len(tail)) + tail, number + 1
        taken.add(key)
        paths.append(output_path(sheet.parent / f"{stem}.png"))
    return Files(said, paths, sheet if len(names) > 1 else None, film)


def save(write: Callable[..., Path], path: Path, force: bool) -> Path:
    """Write a file; where that fails after all, into the temporary folder, and say so."""
    try:
        return write(path, force=force)
    except OutputError as error:
        spare = write(Path(tempfile.mkdtemp(prefix="featvis-")) / path.name, force=True)
        print(f"warning: {error}; written to {printable(spare)} instead", file=sys.stderr)
        return spare


def deliver(
    found: Iterable[tuple[Sequence[int], Result]],
    given: Namespace,
    files: Files,
    measure: Callable[[Result], Result] = lambda result: result,
) -> None:
    """Write pictures and report them as they come, and their grid at the end.

    Args:
        found: places of pictures in `files`, and their results.
        given: the command line.
        files: where they go.
        measure: what gives a result more evidence.

    Raises:
        NonFiniteError: one did not stay finite; the pictures are written.
        typer.Exit: after a Ctrl-C, or where a unit never gave a gradient; so too.
    """
    done: dict[int, Result] = {}
    for places, result in found:
        # All pictures of a batch are safe before anything is measured.
        results = [result] if len(places) == 1 else list(result)
        written = [
            save(one.save, files.pictures[place], given.force)
            for place, one in zip(places, results, strict=True)
        ]
        if files.film is not None and result.snapshots:
            save(result.save_animation, files.film, given.force)
        done |= dict(zip(places, results, strict=True))
        cut_short, before = False, len(result.evidence)
        try:
            if "interrupt" not in result.stopped and not any(result.failures):
                result = measure(result)
        except KeyboardInterrupt:
            # The pictures are there: they are reported with what is known of them.
            cut_short = True
        results = [result] if len(places) == 1 else list(result)
        for place, one, path in zip(places, results, written, strict=True):
            if len(one.evidence) > before:
                save(one.save, path, True)
            report(one, files.texts[place], path, given.seed, given.json)
        if cut_short:
            raise typer.Exit(INTERRUPTED)
    if files.sheet is not None and len(done) > 1:
        shown = [(place, image) for place in sorted(done) for image in done[place].images]
        labels = [(files.labels or files.texts)[place] for place, _ in shown]
        buffer = io.BytesIO()
        grid([to_picture(image) for _, image in shown], labels).save(buffer, "PNG")

        def write(path: Path, force: bool) -> Path:
            return write_file(path, buffer.getvalue(), force=force)

        path = save(write, files.sheet, given.force)
        if not given.json:
            print(f"grid  {printable(path)}")
    if any("interrupt" in one.stopped for one in done.values()):
        raise typer.Exit(INTERRUPTED)
    failures = [f"{files.texts[p]}: {f}" for p, one in done.items() for f in one.failures if f]
    if failures:
        raise NonFiniteError("; ".join(failures))
    if any(any(one.silent) for one in done.values()):
        raise typer.Exit(SILENT)


def label(objective: Any, network: Model) -> str:
    """Return the text under a picture: a class has its name."""
    is_class = isinstance(objective, (Logit, Probability, LogProbability))
    if is_class and network.labels and np.ndim(objective.index) == 0:
        return f"{objective}: {network.labels[int(np.asarray(objective.index))]}"
    return str(objective)


def report(result: Result, text: str, path: Path, seed: Any, as_json: bool, **more: Any) -> None:
    """Print what a result is like, a line or a record: a number for one image, a list for more."""
    told = result.summary()
    evidence = {name: told["evidence"][name] for name in result.evidence}
    record: dict[str, Any] = {
        "objective": text,
        "image": str(path),
        "score": told["score"],
        "clean_score": told["clean_score"],
        "seconds": round(result.seconds / (result.runs[-1].images // len(result)), 3),
        "steps": int(max(result.steps)),
        "seed": seed,
        "model": result.run.parts.model.name,
        "stopped": told["stopped"],
        "silent": told["silent"],
        **evidence,
        **more,
    }
    if as_json:
        alone = len(result) == 1
        plain = {k: v[0] if alone and isinstance(v, list) else v for k, v in record.items()}
        print(json.dumps(plain), flush=True)
        return

    def show(values: Sequence[float | None]) -> str:
        return ", ".join("not finite" if v is None else f"{v:.4g}" for v in values)

    facts = [f"clean score {show(record['clean_score'])}", f"transformed {show(record['score'])}"]
    facts += [f"{name.replace('_', ' ')} {show(values)}" for name, values in evidence.items()]
    if set(result.stopped) != {"steps"}:
        facts.append(f"stopped at step {record['steps']} ({', '.join(sorted({*result.stopped}))})")
    number = sum(why is not None for why in result.silent)
    if number:
        facts.append("no gradient" + (f" for {number} of {len(result)}" if len(result) > 1 else ""))
    said = f"{', '.join(facts)}, {record['seconds']:.1f} s"
    print(f"{printable(text)}  {said}  {printable(path)}", flush=True)
