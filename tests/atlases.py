"""Made-up atlases: stores of noise that say who they are, without a network."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from featvis.atlas.store import Batch, Store

#: Of a made-up index.
IMAGES = 12


def made_up(
    path: str | Path,
    layers: Mapping[str, int] | None = None,
    *,
    size: tuple[int, int] = (32, 32),
    batch: int = 8,
    seeds: int = 2,
    photographs: Path | None = None,
) -> Store:
    """A store of pictures that nothing made.

    Each is its unit's own colour with noise on it, so that one can be told from another.

    Args:
        path: of the store.
        layers: their units; the last one is of classes.
        size: of the pictures.
        batch: rows of a batch.
        seeds: pictures a unit.
        photographs: a folder that is filled with natural images, which the store then names.
    """
    layers = layers or {"block1": 20, "block2/conv": 9, "logits": 12}
    shapes = {
        name: {
            "shape": [units] if name == list(layers)[-1] else [4, 4, units],
            "labels": [f"class {n}, thing" for n in range(units)]
            if name == list(layers)[-1]
            else None,
        }
        for name, units in layers.items()
    }
    model = {"name": "made_up", "digest": "0" * 64, "origin": "nowhere"}
    settings = {
        "model": model, "size": list(size), "channels": 3, "batch": batch, "seed": 0, "steps": 16,
        "parameterization": f"Fourier(size={size})", "layers": shapes, "versions": {},
        "optimizer": "nadam(0.035)", "transform": "affine",
    }  # fmt: skip
    store = Store.create(path, settings)
    rng = np.random.default_rng(0)
    for layer, count in layers.items():
        for role, places in (("picture", seeds), ("negative", 1)):
            for place in range(places):
                for start in range(0, count, batch):
                    units = range(start, min(start + batch, count))
                    _append(store, layer, role, place, units, rng)
        if photographs is not None:
            _describe(store, layer, count, photographs, rng)
    return store


def color(unit: int, role: str = "picture", place: int = 0) -> np.ndarray:
    """The mean colour of a picture, (3,)."""
    rng = np.random.default_rng([unit, len(role), place])
    return rng.uniform(60, 195, 3)


def _append(store, layer, role, place, units, rng) -> None:
    noise = rng.uniform(-60, 60, (store.rows, *store.shape))
    means = np.stack([color(unit, role, place) for unit in units])
    noise[: len(units)] += means[:, None, None]
    count = len(units)
    score = rng.gamma(2.0, 2.0, count) * (-0.1 if role == "negative" else 1)
    silent = tuple("its unit is off" if unit % 7 == 6 else None for unit in units)
    batch = Batch(
        row=store.next_row(), layer=layer, objective="channel", role=role, units=tuple(units),
        numbers=(place,) * count, clean=tuple(score.tolist()),
        transformed=tuple((0.9 * score).tolist()), steps=(16,) * count, silent=silent,
        failed=(None,) * count, seconds=1.5,
    )  # fmt: skip
    padded = [*units, *[units[-1]] * (store.rows - count)]
    run = {
        "model": {**store.settings["model"], "leak": None},
        "objective": f"{layer}:{padded}", "targets": {}, "seed": padded, "steps": 16,
        "batch": store.rows, "parameterization": store.settings["parameterization"],
        "optimizer": "nadam(0.035)", "transform": "affine", "draws": 1, "patience": None,
        "snapshots": [], "init": None, "member": None, "versions": {"featvis": "0"},
    }  # fmt: skip
    manifest = {"format": 3, "runs": [run], "arrays": {}}
    store.append(batch, np.clip(noise, 0, 255).astype(np.uint8), manifest)


def _describe(store, layer, count, photographs, rng) -> None:
    photographs.mkdir(exist_ok=True)
    for number in range(IMAGES):
        levels = np.full((*store.shape[:2], 3), 20 * number, np.uint8)
        Image.fromarray(levels).save(photographs / f"photograph{number:02}.png")
    values = np.sort(rng.gamma(2.0, 1.0, (count, IMAGES)), axis=1)[:, ::-1].astype(np.float32)
    order = np.argsort(rng.random((count, IMAGES)), axis=1).astype(np.int32)
    height, width = store.shape[:2]
    boxes = np.tile(np.array([0, 0, height // 2, width // 2], np.int32), (count, 4, 1))
    ends = np.stack([np.zeros(count), values[:, 0]], axis=1).astype(np.float32)
    histogram = np.stack(
        [
            np.histogram(one, 16, (low, high))[0]
            for one, (low, high) in zip(values, ends, strict=True)
        ]
    ).astype(np.uint32)
    arrays = {
        "highest": order[:, :4],
        "highest_scores": values[:, :4],
        "highest_boxes": boxes,
        "lowest": order[:, :-5:-1],
        "lowest_scores": values[:, :-5:-1],
        "lowest_boxes": boxes,
        "histogram": histogram,
        "range": ends,
        "mean": values.mean(1),
        "sd": values.std(1),
        "zeros": np.zeros(count, np.float32),
        "dead": np.arange(count) % 7 == 6,
        "nearest": ((np.arange(count)[:, None] + [1, 2, 3]) % count).astype(np.int32),
        "correlations": np.tile(np.array([0.9, 0.5, 0.2], np.float32), (count, 1)),
        "percentiles": rng.uniform(50, 100, count).astype(np.float32),
    }
    files = {str(n): str(photographs / f"photograph{n:02}.png") for n in range(IMAGES)}
    facts = {"index": str(photographs), "images": IMAGES, "files": files, "size": [height, width]}
    store.set_natural(layer, arrays, facts)
