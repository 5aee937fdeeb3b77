"""Digests: by which arrays are known, in manifests and in texts."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np


def digest_of(array: np.ndarray) -> str:
    """The SHA-256 of an array, its type and shape included."""
    seal = hashlib.sha256(f"{array.dtype} {list(array.shape)} ".encode())
    seal.update(np.ascontiguousarray(array).tobytes())
    return seal.hexdigest()


def digest_of_tree(values: Any) -> str:
    """The digest of an array; of a pytree of them a SHA-256 of their places and digests."""
    leaves = jax.tree_util.tree_leaves_with_path(values)
    if len(leaves) == 1 and not leaves[0][0]:
        return digest_of(np.asarray(values))
    seal = hashlib.sha256()
    for path, leaf in leaves:
        seal.update(f"{jax.tree_util.keystr(path)} {digest_of(np.asarray(leaf))}\n".encode())
    return seal.hexdigest()
