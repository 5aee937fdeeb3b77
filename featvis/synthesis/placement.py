"""Where a run is: its images are spread over the local devices."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from featvis.synthesis.loop import State


class Placement(NamedTuple):
    """Where a run is: XLA partitions its programs by where their arguments are."""

    whole: Sharding | None = None  # of what the images share; None: wherever JAX puts it
    parts: Sharding | None = None  # of arrays whose first axis is the images'
    devices: int = 1

    def shared(self, tree: Any) -> Any:
        """What each device has all of."""
        return tree if self.whole is None else jax.device_put(tree, self.whole)

    def images(self, tree: Any) -> Any:
        """Arrays of which each device has its images' part."""
        return tree if self.parts is None else jax.device_put(tree, self.parts)

    def state(self, state: State) -> State:
        """A state, always laid out alike: another layout would be another compiled program."""
        return State(self.shared(state.step), *self.images(state[1:]))


def placement_of(weights: Any, count: int) -> Placement:
    """Equal parts for as many of the local devices as divide the images.

    Nothing leaves where somebody put it: `jax.default_device`, or weights on a device.
    """
    arrays = [w for w in jax.tree.leaves(weights) if isinstance(w, jax.Array) and w.committed]
    placed = set[Any]().union(*(array.devices() for array in arrays))
    if len(placed) == 1:
        there = SingleDeviceSharding(placed.pop())
        return Placement(there, there)
    local = jax.local_devices()
    number = max(n for n in range(1, len(local) + 1) if count % n == 0)
    default = jax.config.jax_default_device  # type: ignore[attr-defined]
    if placed or number == 1 or default is not None:
        return Placement()
    mesh = Mesh(np.asarray(local[:number]), ("images",), axis_types=(AxisType.Auto,))
    return Placement(
        NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("images")), number
    )
