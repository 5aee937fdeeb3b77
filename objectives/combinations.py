"""Objectives of objectives: bounds, targets, smooth minima and maxima, groups of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from objectives.activations import Activations
from objectives.errors import ObjectiveError
from objectives.fields import leaf, shorten, static
from objectives.objective import Objective, is_objective


def _check_inner(owner: Objective, inner: Any) -> None:
    if not is_objective(inner):
        name = type(owner).__name__
        raise ObjectiveError(f"{name} is of an objective; got {shorten(inner)}")


class _OfScore(Objective):
    """What is asked of another objective's score."""

    objective: Objective
    level: ArrayLike = leaf(ndim=0)

    def __post_init__(self) -> None:
        _check_inner(self, self.objective)
        super().__post_init__()


class AtLeast(_OfScore):
    """A bound: −max(0, level − score), 0 with gradient 0 where the score is at the level or above.

    Added with a weight above what the rest of the sum gains by breaking it, it is kept (an exact
    penalty): `MinDistance() + 20 * AtLeast(Neuron("block4", 3), 2.5)` are the most different
    images of at least that activation. An upper bound is `AtLeast(-objective, -level)`.

    Args:
        objective: whose scores are bound from below.
        level: in the units of its scores; or one an image, (n,).
    """

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at most 0."""
        missing = jnp.asarray(self.level, jnp.float32) - self.objective(acts, image)
        return -jax.nn.relu(missing)


class Level(_OfScore):
    """A target: −(score − level)², 0 where the score is the level.

    For pictures of the same activation, such as those along a curve on which a unit is constant.

    Args:
        objective: whose scores are to be at the level.
        level: in the units of its scores; or one an image, (n,).
    """

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), at most 0."""
        return -((self.objective(acts, image) - jnp.asarray(self.level, jnp.float32)) ** 2)


class _Smooth(Objective):
    """A smooth extreme of several objectives."""

    objectives: tuple[Objective, ...]
    sharpness: ArrayLike = leaf(default=1.0, ndim=0)

    def __post_init__(self) -> None:
        given = self.objectives
        if not (
            isinstance(given, (tuple, list)) and len(given) > 1 and all(map(is_objective, given))
        ):
            raise ObjectiveError(
                f"{type(self).__name__} is of two or more objectives; got {shorten(given)}"
            )
        super().__post_init__()
        if not isinstance(self.sharpness, jax.core.Tracer) and np.any(
            np.asarray(self.sharpness) <= 0
        ):
            raise ObjectiveError(f"sharpness is above 0; got {shorten(self.sharpness)}")

    def _extreme(self, acts: Mapping[str, Any], image: Any, sign: float) -> jax.Array:
        scores = jnp.stack([one(acts, image) for one in self.objectives])
        sharpness = sign * jnp.asarray(self.sharpness, scores.dtype)
        sharpness = jnp.broadcast_to(sharpness, scores.shape[1:])
        total = jax.nn.logsumexp(sharpness[None] * scores, axis=0)
        return (total - jnp.asarray(np.log(len(self.objectives)), total.dtype)) / sharpness


class Softmax(_Smooth):
    """The smooth maximum of several objectives: log(mean exp(sharpness · score)) / sharpness.

    From their mean at a sharpness near 0 to their maximum at a large one; of equal scores it is
    that score.

    Args:
        objectives: at least two.
        sharpness: in units of one over the scores', above 0; or one an image, (n,).
    """

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), between the mean and the maximum."""
        return self._extreme(acts, image, 1.0)


class Softmin(_Smooth):
    """The smooth minimum of several objectives: −log(mean exp(−sharpness · score)) / sharpness.

    Maximised, it raises the lowest of them: pictures that drive all of several units.

    Args:
        objectives: at least two.
        sharpness: in units of one over the scores', above 0; or one an image, (n,).
    """

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,), between the minimum and the mean."""
        return self._extreme(acts, image, -1.0)


class InGroups(Objective):
    """An objective for each `size` images in a row, as if each such group were a batch of its own.

    Several sets of different images are then one batch, of one compiled program:
    `in_groups(min_distance(), 6)` of 24 images are four distances.

    Args:
        objective: of a group; what it has one an image, it has for the images of a group.
        size: images of a group, at least 1; the batch is of whole groups.
    """

    couples_images = True

    objective: Objective
    size: int = static()

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_inner(self, self.objective)
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ObjectiveError(f"size is a whole number of images above 0; got {self.size!r}")
        own = self.objective.batch_size
        if own is not None and own != self.size:
            raise ObjectiveError(
                f"{self.objective!r} is made for {own} images; the groups are of {self.size}"
            )
        if any(getattr(node, "images", None) is not None for node in self.objective.walk()):
            raise ObjectiveError(
                f"{self.objective!r} names images of the whole batch, or sees some beside it; in a "
                "group there are those of the group alone"
            )

    def __call__(self, acts: Mapping[str, Any], image: Any) -> jax.Array:
        """Scores (n,)."""
        count = image.shape[0]
        if count % self.size:
            raise ObjectiveError(
                f"groups of {self.size} images do not make a batch of {count}; the next that they "
                f"make is {self.size * -(-count // self.size)}"
            )

        def grouped(a: jax.Array) -> jax.Array:
            return a.reshape(count // self.size, self.size, *a.shape[1:])

        def of_group(acts: Any, image: jax.Array) -> jax.Array:
            return self.objective(Activations(acts), image)

        scores: jax.Array = jax.vmap(of_group)(
            {name: grouped(acts[name]) for name in acts}, grouped(image)
        )
        return scores.reshape(count)

    def _independent_nodes(self) -> Any:
        yield self
