"""Our attributions in the benchmark: whole calls of `explain`, once compiled."""

from __future__ import annotations

from typing import Any

import featvis as fv
from peers.timing import UNIT_OF_CLASS, calls, pictures

Found = dict[str, Any]


def load(network: str) -> fv.Model:
    """The network, and the folder of compiled programs."""
    fv.enable_cache()
    return fv.load(network)


def _seconds(network: str, count: int, size: int, repeats: int, **options: Any) -> Found:
    model, images = load(network), pictures(count, size)
    unit = fv.Probability(UNIT_OF_CLASS) if options["method"] == "rise" else fv.Logit(UNIT_OF_CLASS)

    def explain(**other: Any) -> None:
        fv.explain(model, unit, images, **options | other)

    # Of masks as many as are scored together compile the same program.
    few = {"masks": min(options["masks"], 100)} if "masks" in options else {}
    return {"seconds": calls(explain, repeats, lambda: explain(**few))}


def integrated_gradients(
    network: str, count: int, size: int, repeats: int, steps: int, together: int
) -> Found:
    """Seconds of integrated gradients by captum's own rule; `together` is captum's."""
    return _seconds(
        network, count, size, repeats,
        method="integrated_gradients", steps=steps, rule="gauss_legendre",
    )  # fmt: skip


def grad_cam(network: str, count: int, size: int, repeats: int) -> Found:
    """Seconds of Grad-CAM by the last map before the pool."""
    return _seconds(network, count, size, repeats, method="grad_cam", layer="head", signed=True)


def rise(network: str, count: int, size: int, repeats: int, masks: int) -> Found:
    """Seconds of RISE, its masks drawn anew."""
    return _seconds(network, count, size, repeats, method="rise", masks=masks)
