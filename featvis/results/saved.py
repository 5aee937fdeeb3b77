"""Results read back from files, without computing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featvis.errors import InputError, printable
from featvis.images import levels_of
from featvis.models import Model
from featvis.pictures import from_picture
from featvis.results.checks import check_manifest, damaged
from featvis.results.format import BESIDE, is_text, is_whole, parts_of, places_of
from featvis.results.history import SavedRuns
from featvis.results.reading import read_record
from featvis.results.result import Result


def load(path: str | Path, model: Model | None) -> Result:
    """See `Result.load`."""
    path = Path(path)
    record = read_record(path)
    beside = path.with_suffix(".json")
    if "result" not in record and beside.is_file():
        record = {**record, "result": read_record(beside).get("result")}
    manifest = {name: value for name, value in record.items() if name not in BESIDE}
    parts = parts_of(manifest)
    last = [check_manifest(part)[-1] for part in parts]
    counts = [len(places_of(run["member"], run["batch"])) for run in last]
    images = _images(path.with_suffix(".png"), record.get("layout"), sum(counts))
    figures = _figures(record.get("result"), last, counts)
    results, start = [], 0
    for part, count in zip(parts, counts, strict=True):
        some = slice(start, start + count)
        start += count
        results.append(
            Result(
                images=images[some],
                scores=np.zeros((0, count), np.float32),
                params=None,
                sensitivity=np.full(images[some].shape[:3], np.nan, np.float32),
                snapshots={},
                runs=SavedRuns(part, model),
                **{k: v[some] for k, v in figures.items() if k not in ("seconds", "evidence")},
                seconds=figures["seconds"] * count / sum(counts),
                evidence={name: values[some] for name, values in figures["evidence"].items()},
            )
        )
    return Result.join(results)


def _images(path: Path, layout: Any, count: int) -> np.ndarray:
    """The images (n, h, w, c) of a picture, in 8 bits a channel, from where its layout says."""
    shape: Any = layout.get("shape") if isinstance(layout, Mapping) else None
    corners: Any = layout.get("corners") if isinstance(layout, Mapping) else None
    fits = (
        isinstance(shape, list)
        and len(shape) == 3
        and all(is_whole(side, 1, 2**16) for side in shape)
        and isinstance(corners, list)
        and len(corners) == count
        and all(
            isinstance(one, list) and len(one) == 2 and all(is_whole(at, 0, 2**31) for at in one)
            for one in corners
        )
    )
    if not fits:
        raise damaged("layout", f"a shape and the corners of {count} images", layout)
    levels = levels_of(path)
    height, width, channels = shape
    wide = width if channels == 3 else width * channels
    if any(x + wide > levels.shape[1] or y + height > levels.shape[0] for x, y in corners):
        raise InputError(f"{printable(path)} is smaller than the images that it should hold")
    return np.stack([from_picture(levels[y : y + height, x : x + wide], shape) for x, y in corners])


def _figures(figures: Any, runs: Sequence[Mapping[str, Any]], counts: Sequence[int]) -> Any:
    """What is known of each image; NaN where the file says nothing.

    Raises:
        InputError: figures of something else.
    """
    count = sum(counts)
    if figures is None:
        nothing = np.full(count, np.nan)
        steps = np.repeat([run["steps"] for run in runs], counts)
        figures = {
            "score": nothing, "clean_score": nothing, "steps": steps,
            "stopped": ["steps"] * count, "silent": [None] * count, "seconds": 0.0, "evidence": {},
        }  # fmt: skip

    def numbers(values: Any) -> np.ndarray:
        return np.array([math.nan if one is None else float(one) for one in values], np.float32)

    try:
        stopped, silent = tuple(map(str, figures["stopped"])), tuple(figures["silent"])
        found: dict[str, Any] = {
            "clean_scores": numbers(figures["clean_score"]),
            "transformed_scores": numbers(figures["score"]),
            "steps": np.array([int(one) for one in figures["steps"]]),
            "stopped": stopped,
            "failures": tuple("not finite" if s == "non-finite" else None for s in stopped),
            "silent": silent,
            "seconds": float(figures["seconds"]),
            "evidence": {str(k): numbers(v) for k, v in figures["evidence"].items()},
        }
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"the figures of the picture are damaged: {printable(error)}") from error
    lists = [v for k, v in found.items() if k not in ("seconds", "evidence")]
    texts = all(one is None or is_text(one) for one in silent)
    if not texts or any(len(one) != count for one in [*lists, *found["evidence"].values()]):
        raise InputError(f"the figures of the picture are damaged: they are not of {count} images")
    return found
