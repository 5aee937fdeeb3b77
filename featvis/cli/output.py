"""Where results go, and how they are told."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featvis.cache import enable_cache
from featvis.errors import OutputError, printable
from featvis.files import name_limit, output_path, shorten_name, write_file
from featvis.models import Model
from featvis.pictures import grid, to_picture
from featvis.results import Result
from objectives import Logit, LogProbability, Probability

#: Snapshots of an animation.
FRAMES = 24
#: How a shell reports a program ended by Ctrl-C.
INTERRUPTED = 130
#: Pictures were written, and the unit of one of them never gave a gradient.
SILENT = 3


def file_name(model: str) -> str:
    """A model's name as part of a file's: `mypackage.nets:factory` has no place there."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", model).strip("-.") or "model"


def slug(text: str) -> str:
    """A text as part of a file's name: letters and digits of any script, 60 of them."""
    kept = "".join(c if c.isalnum() or (c > "\x7f" and c.isprintable()) else "-" for c in text)
    return re.sub(r"-+", "-", kept).strip("-")[:60] or "objective"


def plan(output: Path | None, model: str, slugs: Sequence[str]) -> tuple[list[Path], Path | None]:
    """Where each picture goes, and the grid of several; tried before anything is computed."""
    if output is not None and output.suffix and not os.path.isdir(output):
        sheet = output_path(output)
        if len(slugs) == 1:
            return [sheet], None
        folder, before = sheet.parent, f"{sheet.stem}-"
    else:
        folder, before = output or Path(), f"{model}_"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            shown = printable(folder)
            raise OutputError(f"cannot make the folder {shown}: {error.strerror}") from error
        sheet = output_path(folder / f"{before}grid.png")
    # Room for a number and for the longest suffix.
    room = name_limit(folder) - len("-9999.json")
    taken: set[str] = set()
    paths = []
    for slug in slugs:
        stem, number = shorten_name(before + slug, room), 1
        # Some file systems take a and A, or two ways to write é, for one name.
        while (key := unicodedata.normalize("NFC", stem).casefold()) in taken:
            tail = f"-{number}"
            stem, number = shorten_name(before + slug, room - len(tail)) + tail, number + 1
        taken.add(key)
        paths.append(output_path(folder / f"{stem}.png"))
    return paths, sheet if len(slugs) > 1 else None


def use_cache() -> None:
    """Keeps compiled programs in the cache folder, and says where that fails."""
    try:
        enable_cache()
    except OutputError as error:
        print(f"warning: {error}; compiling anew each time", file=sys.stderr)


def save(write: Callable[..., Path], path: Path, force: bool) -> Path:
    """Writes a file; where that fails after all, into the temporary folder, and says so."""
    try:
        return write(path, force=force)
    except OutputError as error:
        spare = write(Path(tempfile.mkdtemp(prefix="featvis-")) / path.name, force=True)
        print(f"warning: {error}; written to {printable(spare)} instead", file=sys.stderr)
        return spare


def save_sheet(
    images: Sequence[np.ndarray], labels: Sequence[str], sheet: Path, force: bool, as_json: bool
) -> None:
    """Writes pictures as one grid."""
    buffer = io.BytesIO()
    grid([to_picture(image) for image in images], labels).save(buffer, "PNG")

    def write(path: Path, force: bool) -> Path:
        return write_file(path, buffer.getvalue(), force=force)

    path = save(write, sheet, force)
    if not as_json:
        print(f"grid  {printable(path)}")


def label(objective: Any, network: Model) -> str:
    """The text under a picture: a class has its name."""
    is_class = isinstance(objective, (Logit, Probability, LogProbability))
    if is_class and network.labels and np.ndim(objective.index) == 0:
        return f"{objective}: {network.labels[int(np.asarray(objective.index))]}"
    return str(objective)


def _plain(values: Any) -> Any:
    """One number for one image, a list for several; None for what JSON has no number for."""
    numbers = [float(value) if np.isfinite(value) else None for value in values]
    return numbers[0] if len(numbers) == 1 else numbers


def report(result: Result, text: str, path: Path, seed: Any, as_json: bool, **more: Any) -> None:
    """Prints what a result is like, a line or a record."""
    shared = result.runs[-1].images // len(result)
    record = {
        "objective": text,
        "image": str(path),
        "score": _plain(result.transformed_scores),
        "clean_score": _plain(result.clean_scores),
        "seconds": round(result.seconds / shared, 3),
        "steps": int(max(result.steps)),
        "seed": seed,
        "model": result.run.parts.model.name,
        "stopped": result.stopped[0] if len(result) == 1 else list(result.stopped),
        "silent": result.silent[0] if len(result) == 1 else list(result.silent),
        **{name: _plain(values) for name, values in result.evidence.items()},
        **more,
    }
    if as_json:
        print(json.dumps(record), flush=True)
        return

    def show(value: Any) -> str:
        values = value if isinstance(value, list) else [value]
        return ", ".join("not finite" if v is None else f"{v:.4g}" for v in values)

    facts = [f"clean score {show(record['clean_score'])}", f"transformed {show(record['score'])}"]
    facts += [f"{k.replace('_', ' ')} {show(record[k])}" for k in result.evidence]
    if set(result.stopped) != {"steps"}:
        facts.append(f"stopped at step {record['steps']} ({', '.join(sorted({*result.stopped}))})")
    number = sum(why is not None for why in result.silent)
    if number:
        facts.append("no gradient" + (f" for {number} of {len(result)}" if len(result) > 1 else ""))
    said = f"{', '.join(facts)}, {record['seconds']:.1f} s"
    print(f"{printable(text)}  {said}  {printable(path)}", flush=True)
