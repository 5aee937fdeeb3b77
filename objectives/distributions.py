"""How near the distribution of a layer's activations is to a given one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from objectives.activations import Activations
from objectives.errors import ObjectiveError
from objectives.fields import leaf, static
from objectives.objective import Objective


class SortMatch(Objective):
    """Minus the distance of each channel's activations to given ones, both sorted.

    −mean over channels and positions of (sort(a) − target)²: the squared 2-Wasserstein distance of
    the two sets of numbers, which does not ask where in the picture an activation is. It is 0 for
    equal multisets alone. Görgün et al. 2025, "VITAL: More Understandable Feature Visualization
    through Distribution Alignment and Relevant Information Flow", which sums it over conv1 and four
    stages; their target is sorted activations of natural images of a class.

    Where the target has another number of levels than the layer has positions, it is interpolated
    between them, linearly in the rank.

    Args:
        layer: a layer with channels last, (n, ..., c), of at least one position.
        target: sorted activations of each channel, (levels, c) ascending, of all images; or one set
            an image, (n, levels, c). `featvis.sorted_activations` makes them of images.
    """

    layer: str = static()
    target: ArrayLike = leaf(ndim=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.target, jax.core.Tracer):
            return
        if np.any(np.diff(np.asarray(self.target), axis=-2) < 0):
            raise ObjectiveError(
                "the target of SortMatch is (levels, channels), ascending along the levels; got "
                f"shape {np.shape(self.target)} in another order"
            )

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at most 0, in squared units of the activations."""
        a = acts[self.layer]
        found = jnp.sort(a.reshape(a.shape[0], -1, a.shape[-1]), axis=1)
        wanted = _at_ranks(jnp.asarray(self.target, found.dtype), found.shape[1])
        return -jnp.mean((found - jnp.broadcast_to(wanted, found.shape)) ** 2, axis=(1, 2))

    def _check_node(self, acts: Activations) -> None:
        width, given = acts[self.layer].shape[-1], np.shape(self.target)[-1]
        if width != given:
            raise ObjectiveError(
                f"the target of SortMatch is of {given} channels; {self.layer} has {width}"
            )


def _at_ranks(target: jax.Array, count: int) -> jax.Array:
    """Sorted values (..., levels, c) at `count` ranks, (1 or n, count, c), by interpolation."""
    levels = target.shape[-2]
    target = target.reshape(-1, levels, target.shape[-1])
    if levels == count:
        return target
    # Ranks are the middles of equal parts; beyond the first and the last level these go on.
    places = np.clip((np.arange(count) + 0.5) * levels / count - 0.5, 0, levels - 1)
    below = np.minimum(np.floor(places).astype(int), max(levels - 2, 0))
    share = (places - below).astype(np.float32)[None, :, None]
    above = np.minimum(below + 1, levels - 1)
    return (1 - share) * target[:, below] + share * target[:, above]
