"""Whether a picture can be trusted: is it processed as photographs are, whatever it began from?

An optimised picture can show what a unit never meets in the world. Two ways are known by which it
comes to that, and each has its check here:

- **Another path** (Geirhos et al. 2023, "Don't trust your eyes: on the (un)reliability of feature
  visualizations", section 2): a circuit tells pictures from photographs, and each reach the unit
  by channels of their own. `path_overlap` asks whether what drives the unit comes through the
  channels through which it comes in photographs.
- **Another start** (Bareeva et al. 2024, "Manipulating Feature Visualizations with Gradient
  Slingshots"): near where the optimisation begins, and only there, gradients lead to a chosen
  picture. `start_gap` and `start_overlap` ask whether an optimisation that begins at photographs
  ends as high, and by the same channels.

`path_similarity` is the measure of Geirhos et al. (section 3), as far as the paper tells it: its
code is not public. It stands beside the others and decides nothing, as it is near 0 in networks
that nobody touched; that is what their paper shows.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from featvis.errors import InputError
from featvis.evidence.natural import comparable, unit_scores
from featvis.evidence.paths import (
    Photographs,
    checked_top,
    overlaps,
    path_of,
    photographs,
    units_of_images,
    ways_of,
)
from featvis.evidence.seeds import reseeded
from featvis.images import Images
from featvis.results import Result
from featvis.results.joining import as_result
from featvis.results.manifest import Done
from featvis.synthesis.arguments import Pictures
from featvis.synthesis.run import again

#: Overlaps below it are suspect.
LEAST_OVERLAP = 0.5
#: Gaps above it, of either sign, are suspect.
MOST_GAP = 0.5


class TrustWarning(UserWarning):
    """A picture that is not processed as photographs are, or that depends on where it began."""


class _Starts(NamedTuple):
    """Pictures (starts, n, h, w, c) that began elsewhere, and their unit's scores (starts, n)."""

    noise: np.ndarray
    noise_scores: np.ndarray
    natural: np.ndarray
    natural_scores: np.ndarray


def trust(
    result: Result,
    images: str | Path | Images,
    *,
    top: int = 8,
    starts: int = 3,
    progress: bool = True,
) -> Result:
    """Say whether each picture is processed as photographs are, and depends on where it began.

    Of the photographs those count that excite the unit most, `top` of them. The picture is made
    again from other seeds and from the best of these photographs. Image priors are left out of the
    unit's score, as in `compare_with_natural`.

    What is added to the evidence, for each image:

    - `path_overlap`, 0 to about 1.3: how far the picture reaches the unit through the channels
      through which these photographs do (`featvis.evidence.paths.overlaps`: the common part of
      their shares in activation times derivative), in the layer where this is least. 1 is as among
      the photographs, 0 is no channel in common. Suspect below 0.5.
    - `path_natural`: its null, the same of the one of these photographs that overlaps the others
      least.
    - `path_similarity`, unbounded: Spearman's ρ over the channels' mean activations, (ρ(picture,
      top) − ρ(any, top)) / (ρ(top, top) − ρ(any, top)), the differences summed over the layers
      where the lower is at least 0.05: 1 is as photographs that excite the unit, 0 as any
      photograph; NaN where these are nowhere more alike than any. Geirhos et al. have classes in
      the place of units, and a curve over the layers (`paths`). Nothing is concluded from it.
    - `start_gap`, −1 to 1 where both are above the median photograph: the mean score of the
      pictures that began at photographs less that of those that began at noise, over the larger of
      both, counted from the median photograph's. 0 where the start does not matter. Suspect above
      0.5 in size.
    - `start_overlap`: as `path_overlap`, of the pictures that began at photographs with those that
      began at noise. Suspect below 0.5.
    - `suspect`: how many of these three are beyond their bounds.

    False alarms, for 100 units of EfficientNet-Lite0 with 800 photographs
    (`experiments/trustworthiness.py`): 2 units are suspect, 1 by each of the three. There
    `path_overlap` and `start_overlap` are 0.48 and 0.46 at least, 0.82 in the median; `start_gap`
    is from −0.36 to 0.57; `path_natural` is 0.76 in the median and below 0.5 for 1 unit. Of fooling
    circuits and slingshots planted in the same network all are suspect, 15 of 15 classes: with an
    overlap of 0, or below 0.4 for the starts where the circuit lies between two layers.

    What may not be seen: a circuit within a channel, where the network has no layer, or among the
    steps of a scan; and one that is built against these checks.

    Args:
        result: of `synthesize` or `replay`, or of a method.
        images: photographs, as `compare_with_natural` takes them: at least twice `top`.
        top: photographs that excite the unit most, at least 3.
        starts: runs from noise (the result's own is one) and from photographs each, from 2 to
            `top`; 0 leaves the starts out.
        progress: show a progress bar, on a terminal or in a notebook.

    Returns:
        The result with this evidence. The overlaps are NaN for a unit of the first layer; without
        starts there is none of theirs.

    Raises:
        InputError: an objective without a unit; no photograph, too few, or too few that excite the
            unit; images of another size or range; numbers out of range; for starts a run that
            began at a given image, or a parameterization that no image can be written in.
        NonFiniteError: a NaN or an infinity from another start.
        KeyboardInterrupt: Ctrl-C; a run cut short is no sample.

    Warns:
        TrustWarning: suspect pictures; says which, why, and in which layer.
    """
    result = as_result(result)
    top = checked_top(top)
    if result.joined:
        options: dict[str, Any] = {"top": top, "starts": starts, "progress": progress}
        return Result.join([trust(part, images, **options) for part in result.joined])
    if starts != 0:
        whole = isinstance(starts, (int, np.integer)) and not isinstance(starts, bool)
        if not whole or not 2 <= starts <= top:
            raise InputError(
                f"starts must be an integer from 2 to top ({top}), or 0; got {starts!r}"
            )
        if result.runs[0].start is not None:
            raise InputError(
                "the run started from a given image: noise is no other start of it; starts=0 "
                "leaves the starts out"
            )
    units = units_of_images(result)
    found = photographs(result, images, top)
    began = _from_starts(result, found, starts, progress) if starts else None
    rows: list[dict[str, float]] = []
    for place, unit in enumerate(units):
        more = [began.noise[1:, place], began.natural[:, place]] if began is not None else []
        layers = ways_of(result, place, unit, found, more)
        path = path_of(layers, top, len(found.random))
        row = {
            "path_overlap": _least(path.overlap),
            "path_natural": _least(path.natural),
            "path_similarity": path.normalised(),
        }
        reasons = []
        if row["path_overlap"] < LEAST_OVERLAP:
            layer = path.layers[int(np.nanargmin(path.overlap))]
            reasons.append(
                f"it comes to the unit through other channels of {layer} than photographs do "
                f"(overlap {row['path_overlap']:.2f} of 1)"
            )
        if began is not None:
            noise, natural = (
                scores[:, place].mean() - found.median[place]
                for scores in (began.noise_scores, began.natural_scores)
            )
            highest = max(noise, natural)
            row["start_gap"] = float((natural - noise) / highest) if highest > 0 else 0.0
            after = 1 + top + len(found.random)
            middle = after + starts - 1
            both = overlaps(layers, range(middle, middle + starts), [0, *range(after, middle)])
            row["start_overlap"] = _least(both)
            if abs(row["start_gap"]) > MOST_GAP:
                reasons.append(
                    f"from photographs it scores {natural:.3g} above the median photograph, from "
                    f"noise {noise:.3g}"
                )
            if row["start_overlap"] < LEAST_OVERLAP:
                layer = path.layers[int(np.nanargmin(both))]
                reasons.append(
                    f"from photographs it comes to the unit through other channels of {layer} than "
                    f"from noise (overlap {row['start_overlap']:.2f} of 1)"
                )
        if reasons:
            warnings.warn(f"{unit} is suspect: {'; '.join(reasons)}", TrustWarning, stacklevel=2)
        rows.append({**row, "suspect": len(reasons)})
    return result.with_evidence(**{name: [row[name] for row in rows] for name in rows[0]})


def _least(values: np.ndarray) -> float:
    """The least that is a number; NaN where none is."""
    return float(np.nanmin(values)) if np.isfinite(values).any() else float("nan")


def _from_starts(result: Result, found: Photographs, starts: int, progress: bool) -> _Starts:
    """The pictures again, from noise of other seeds and from photographs."""
    units = comparable(result.run.parts.objective)
    natural = []
    for best in found.best[:starts]:
        photograph, first = found.at(best), result.runs[0]
        # Members of the batch that the result has not begin anywhere.
        begin = np.repeat(photograph[:1], first.images, axis=0)
        if first.images == result.runs[-1].images:
            begin[result.members] = photograph
        begun = [first._replace(start=Pictures(begin)), *result.runs[1:]]
        try:
            natural.append(_again(result, begun, progress))
        except InputError as error:
            raise InputError(f"{error}; starts=0 leaves the starts out") from error
    noise = [result.images]
    for step in range(1, starts):
        noise.append(_again(result, [reseeded(done, step) for done in result.runs], progress))
    scores = [[unit_scores(result, units, one) for one in several] for several in (noise, natural)]
    return _Starts(np.stack(noise), np.stack(scores[0]), np.stack(natural), np.stack(scores[1]))


def _again(result: Result, runs: list[Done], progress: bool) -> np.ndarray:
    """The pictures of a result, made by other runs, (n, h, w, c)."""
    other = again(runs, progress=progress).or_raise().or_warn()
    if "interrupt" in other.stopped:
        raise KeyboardInterrupt
    place = 0 if len(other) == len(result) else result.members[0]
    return other.images[place : place + len(result)]
