"""A report of a unit's facets: an HTML page, its pictures, and the figures."""

from __future__ import annotations

from pathlib import Path

from featvis.methods.facets import Facets
from featvis.pages.report import Report


def facet_report(facets: Facets, folder: str | Path) -> Path:
    """Write a page of a unit's facets: each picture beside the images that it stands for.

    The pictures are in `pictures.png`, which holds their manifest: `replay` makes them again.

    Args:
        facets: of `featvis.facets`.
        folder: where the page goes; made where it is not there.

    Returns:
        The path of `index.html`.

    Raises:
        OutputError: it cannot be written.
    """
    excited = facets.excited
    report = Report(
        folder,
        f"What excites {facets.unit}",
        f"{len(excited)} of {excited.seen} images excite the unit and were grouped by their codes "
        f"at {facets.code}. Each group's picture starts from the mean of the images nearest its "
        "centroid.",
    )
    labels = [f"{100 * share:.0f} % of the images" for share in facets.shares]
    report.result("pictures", facets.result, labels, columns=len(facets))
    for i in range(len(facets)):
        places = facets.nearest[i]
        report.heading(f"Facet {i}")
        apart = "nearest to its own group" if facets.distinct[i] else "nearer to another group"
        report.text(
            f"{labels[i]}. The picture's score is {facets.scores[i]:.4g}, and the median of the "
            f"group's 15 most exciting images {facets.natural[i]:.4g}. Its code is {apart}."
        )
        report.pictures(
            f"facet-{i}",
            [facets.images[i], facets.starts[i], *excited.images[places]],
            ["the picture", "its start", *(f"{excited.scores[p]:.4g}" for p in places)],
            columns=6,
            caption="The picture, what it started from, and the images nearest the centroid",
        )
    if facets.silhouettes:
        rows = [
            [number, one.value, one.chance, one.above] for number, one in facets.silhouettes.items()
        ]
        report.heading("How many facets")
        report.table(
            ["groups", "silhouette", "by chance", "deviations above"],
            rows,
            "Silhouettes of groups of the codes, and of normal codes that are as widely spread",
        )
    if facets.dropped:
        report.text(
            f"Groups too small for a picture: {', '.join(map(str, facets.dropped))} images."
        )
    return report.write(**facets.summary())
