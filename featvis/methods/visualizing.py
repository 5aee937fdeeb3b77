"""What units look for, by a preset: the pictures of several objectives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from featvis import loading
from featvis import text as texts
from featvis.errors import InputError
from featvis.methods.recipe import Setting, chosen
from featvis.models import Model
from featvis.parameterizations import Parameterization
from featvis.results import Result
from featvis.results.run import check_positive, options_of_runs
from featvis.synthesis import synthesize_many
from objectives import Objective


def visualize(
    model: Model | str,
    objectives: Sequence[Objective | str],
    *,
    preset: str = "modern",
    size: tuple[int, int] | None = None,
    parameterization: Parameterization | str | None = None,
    steps: int | None = None,
    **options: Any,
) -> Iterator[tuple[tuple[int, ...], Result]]:
    """Visualize several objectives, those of one kind together in one batch.

    Args:
        model: a network, or the name of one.
        objectives: objectives or their texts.
        preset: a recipe by name: `featvis.methods.presets("visualization")` has them.
        size: (height, width) in pixels; by default the network's own.
        parameterization: how the images are written; by default the preset's.
        steps: in all; by default the preset's.
        **options: as for `synthesize_many`, in place of the preset's; and what the preset has of
            its own.

    Yields:
        Places of objectives, and the result of those.

    Raises:
        InputError: as `synthesize_many`; no such preset.
    """
    model = loading.as_model(model)
    takes = model.input

    def accepts(other: tuple[int, int]) -> bool:
        try:
            model.layers(other)
        except (InputError, TypeError, ValueError):
            return False
        return True

    if steps is not None:
        check_positive("steps", steps)
    seen = Setting(size or takes.size, takes.channels, 1.0, 1.0, True, steps, accepts)
    known = {*options_of_runs(), "batch_limit"}
    own = {name: options.pop(name) for name in [*options] if name not in known}
    (stage,) = chosen("visualize", "visualization", preset, own)(seen).stages
    if isinstance(parameterization, str):
        parameterization = texts.parameterization(
            parameterization, seen.size, takes.channels, fixed_size=size is not None
        )
    return synthesize_many(
        model,
        objectives,
        parameterization or stage.parameterization,
        **{**stage.options, **options, "steps": stage.steps},
    )
