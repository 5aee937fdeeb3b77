"""A page of activation against distance: what each weight of the distance costs."""

from __future__ import annotations

from pathlib import Path

from featvis.methods.trade_off import TradeOff
from featvis.pages.invariances import plots
from featvis.pages.report import Report


def trade_off_page(curve: TradeOff, folder: str | Path, *, seed: int) -> Path:
    """Write the curve and the images of each weight.

    The plot needs matplotlib; without it the page has the table and the pictures.

    Args:
        curve: what `featvis.trade_off` gives.
        folder: where it goes.
        seed: that was asked for.

    Returns:
        The path of the page.

    Raises:
        OutputError: it cannot be written.
    """
    parts = curve.result.run.parts
    page = Report(folder, f"Activation against distance: {curve.unit} of {parts.model.name}")
    knee = float(curve.weights[curve.knee])
    page.text(f"The curve bends most at the weight {knee:g}.")
    rows = [[*row, "knee" if at == curve.knee else ""] for at, row in enumerate(curve.rows())]
    page.table(["weight", "activation", "distance", ""], rows)
    if plots():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 4), layout="constrained")
        axis = figure.subplots()
        axis.plot(curve.distance, curve.activation, "o-")
        axis.plot(curve.distance[curve.knee], curve.activation[curve.knee], "s", markersize=10)
        axis.set_xlabel("smallest distance, in norms")
        axis.set_ylabel("share of the best activation")
        page.figure("curve", figure)
    n = len(curve.result) // len(curve.weights)
    page.result("images", curve.result, columns=n, caption=f"A row of {n} images a weight.")
    return page.write(seed=seed, weights=curve.weights, knee=knee)
