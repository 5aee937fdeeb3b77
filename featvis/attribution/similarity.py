"""Show which regions of two images make a network's embeddings of them alike.

Stylianou, Souvenir & Pless 2019, "Visualizing Deep Similarity Networks": the cosine of two pooled
maps is a sum over pairs of positions, so that each position of either image has a share of it, and
the shares of an image sum exactly to the cosine.
"""

from __future__ import annotations

import functools
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from featvis import checks, kernels, loading
from featvis.attribution.explanation import FORMAT
from featvis.attribution.overlay import sheet
from featvis.digests import digest_of
from featvis.errors import InputError, NonFiniteError, printable
from featvis.files import output_path, part_of_name, picture_name, write_file
from featvis.images import Images
from featvis.models import Model
from featvis.pictures import address_of
from featvis.results.manifest import versions
from featvis.results.packing import png_of
from featvis.told import Told
from objectives import Activations

Pooling = Literal["average", "max"]


class Shares(NamedTuple):
    """How a cosine is shared out.

    Attributes:
        cosine: of the two pooled maps.
        pairs: (h1, w1, h2, w2), the share of each pair of positions; all sum to the cosine.
        first: (h1, w1), that of each position of the first image: the sum over the second's.
        second: (h2, w2), that of each position of the second.
    """

    cosine: float
    pairs: np.ndarray
    first: np.ndarray
    second: np.ndarray


def similarity(first: ArrayLike, second: ArrayLike, pooling: Pooling = "average") -> Shares:
    """Share out the cosine of two pooled maps among their pairs of positions.

    With average pooling a pair's share is the product of its vectors, over the norms of the pooled
    maps and the numbers of positions. With maximum pooling a channel's product belongs to the pair
    of positions where its two maxima are, the first of several.

    Args:
        first: a map (h1, w1, c), as of an embedding network's last layer with positions.
        second: another of the same layer, (h2, w2, c).
        pooling: "average" or "max", as the network pools the layer.

    Raises:
        InputError: no maps, maps of different numbers of channels, as of different networks, or
            another pooling; or a pooled map that is zero and has no cosine.
        NonFiniteError: a NaN or an infinity in a map.
    """
    a, b = (checks.real_array("a map (h, w, c)", one, np.float64) for one in (first, second))
    if a.ndim != 3 or b.ndim != 3 or 0 in (a.size, b.size):
        raise InputError(f"maps are (h, w, c); got {a.shape} and {b.shape}")
    if a.shape[-1] != b.shape[-1]:
        raise InputError(
            f"maps of {a.shape[-1]} and of {b.shape[-1]} channels have no cosine: both must be of "
            "the same layer of the same network"
        )
    if pooling not in get_args(Pooling):
        raise InputError(f"pooling is one of {', '.join(get_args(Pooling))}, not {pooling!r}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise NonFiniteError("NaN or infinity in a map")
    rows, columns = (one.reshape(-1, one.shape[-1]) for one in (a, b))
    if pooling == "average":
        pooled = rows.mean(0), columns.mean(0)
        pairs = rows @ columns.T / (len(rows) * len(columns))
    else:
        pooled = rows.max(0), columns.max(0)
        pairs = np.zeros((len(rows), len(columns)))
        np.add.at(pairs, (rows.argmax(0), columns.argmax(0)), pooled[0] * pooled[1])
    norms = [float(np.linalg.norm(one)) for one in pooled]
    if not all(norms):
        which = "first" if not norms[0] else "second"
        raise InputError(f"the {which} map is zero once pooled: it has no cosine with any other")
    pairs = pairs / (norms[0] * norms[1])
    return Shares(
        cosine=float(pooled[0] @ pooled[1] / (norms[0] * norms[1])),
        pairs=pairs.reshape(*a.shape[:2], *b.shape[:2]),
        first=pairs.sum(1).reshape(a.shape[:2]),
        second=pairs.sum(0).reshape(b.shape[:2]),
    )


@dataclass(frozen=True, eq=False)
class PairExplanation:
    """Where two images are alike to a network.

    Attributes:
        shares: of the cosine, by positions of the layer.
        maps: (2, h, w) float32, the shares of the images' positions, enlarged to the images: each
            sums to the cosine times the pixels of a position.
        images: (2, h, w, c) float32 in [0, 1].
        model: the network.
        layer: whose pooled maps are compared.
        pooling: "average" or "max".
    """

    shares: Shares
    maps: np.ndarray
    images: np.ndarray
    model: Model
    layer: str
    pooling: Pooling

    @property
    def cosine(self) -> float:
        """The cosine of the pooled maps."""
        return self.shares.cosine

    def at(self, row: int, column: int) -> np.ndarray:
        """Where the second image is like one position of the first.

        Args:
            row: of the position in the layer's map.
            column: of it.

        Returns:
            (h, w), that position's shares with those of the second image, enlarged to the image.

        Raises:
            InputError: no such position.
        """
        height, width = self.shares.first.shape
        inside = [
            isinstance(at, (int, np.integer)) and not isinstance(at, bool) and 0 <= at < side
            for at, side in ((row, height), (column, width))
        ]
        if not all(inside):
            raise InputError(
                f"{self.layer} has {height} x {width} positions; there is no ({row}, {column})"
            )
        return _enlarged(self.shares.pairs[row, column], self.images.shape[1:3])

    @property
    def manifest(self) -> Mapping[str, Any]:
        """All that says how the maps were made, plain data."""
        return {
            "explanation": FORMAT,
            "model": {
                "name": self.model.name,
                "digest": self.model.digest,
                "origin": self.model.origin,
            },
            "method": "similarity",
            "layer": self.layer,
            "pooling": self.pooling,
            "images": [digest_of(image) for image in self.images],
            "versions": versions(),
        }

    def picture(self) -> Image.Image:
        """Each picture and, beside it, its map over it: yellow alike, blue against it."""
        return sheet(self.images, self.maps, ["", f"cosine {self.cosine:.3f}"])

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Writes `picture()` as PNG with the manifest inside, and a JSON with the cosine beside.

        Args:
            path: a file's, or a folder's, as for `Explanation.save`.
            force: write over an existing file; else the new one gets a number.

        Returns:
            The path of the PNG as it was written.

        Raises:
            OutputError: it cannot be written.
            InputError: another suffix.

        Warns:
            NameTakenWarning: there was a file of that name; says the new one's.
        """
        name = picture_name(self.model.name, part_of_name(f"{self.layer}-similarity"))
        path = output_path(path, name=name)
        content = png_of(self.picture(), self.manifest)
        record = {**self.manifest, "result": {"cosine": self.cosine}}
        beside = {".json": (json.dumps(record, indent=1) + "\n").encode()}
        return write_file(path, content, beside=beside, force=force)

    def told(self, files: Sequence[str], picture: Path) -> Told:
        """What the command line says of the maps.

        Args:
            files: of the two images.
            picture: where it was written.
        """
        record = {
            "images": list(files),
            "layer": self.layer,
            "pooling": self.pooling,
            "cosine": self.cosine,
            "picture": str(picture),
        }
        return Told([record], [f"{self.layer}  cosine {self.cosine:.4g}  {printable(picture)}"])

    def __repr__(self) -> str:
        return f"PairExplanation({self.layer} of {self.model.name}, cosine {self.cosine:.3f})"

    def _repr_html_(self) -> str:
        """The picture, as a notebook shows it."""
        data = address_of(self.picture())
        title = html.escape(repr(self))
        return f'<div><code>{title}</code><br><img alt="" src="{data}"></div>'


def explain_pair(
    model: Model | str,
    first: Images,
    second: Images,
    *,
    layer: str | None = None,
    pooling: Pooling = "average",
) -> PairExplanation:
    """Which regions of two images make a network's embeddings of them alike.

    Stylianou, Souvenir & Pless 2019, "Visualizing Deep Similarity Networks".

    Args:
        model: a network, or the name of one.
        first: one image (h, w, c) in [0, 1] or of uint8, or a picture file.
        second: another, of the same size.
        layer: one with maps, (n, h, w, c), which pooled are the embeddings; by default the last
            one with more than one position.
        pooling: of the layer: "average" or "max".

    Returns:
        The shares of the cosine, and maps of both images.

    Raises:
        InputError: not one image each, images of two sizes, a layer without positions, another
            pooling, or a map that has no cosine.
        UnknownLayer: no layer of that name; says the nearest.
        UnknownModel: no model of that name.
        NonFiniteError: a NaN or an infinity in the layer.
    """
    network = loading.as_model(model)
    pair = [network.as_images(one) for one in (first, second)]
    if any(len(one) != 1 for one in pair) or pair[0].shape != pair[1].shape:
        raise InputError(
            f"a pair is of two images of one size; got {pair[0].shape} and {pair[1].shape}"
        )
    images = np.concatenate(pair)
    name = _layer(network, layer, images.shape[1:3])
    values = np.asarray(_values(network.apply, name, network.params, images))
    shares = similarity(values[0], values[1], pooling)
    maps = np.stack([_enlarged(one, images.shape[1:3]) for one in (shares.first, shares.second)])
    return PairExplanation(shares, maps, images, network, name, pooling)


def _layer(model: Model, layer: str | None, size: tuple[int, int]) -> str:
    """The name of a layer with positions: the one asked for, or the last."""
    shapes = model.layers(size)
    able = [name for name, s in shapes.items() if len(s) == 3 and s[0] * s[1] > 1]
    if layer is not None:
        shape = Activations(shapes)[layer]  # an unknown one says the nearest
        if layer not in able:
            listed = ", ".join(able[-4:]) or "none"
            raise InputError(f"layer {layer!r} is {shape} and has no positions; maps: {listed}")
        return layer
    if not able:
        raise InputError(f"{model.name} has no layer with more than one position")
    return able[-1]


@functools.partial(kernels.compiled, static=("apply", "layer"))
def _values(apply: Any, layer: str, params: Any, images: jax.Array) -> jax.Array:
    found: jax.Array = apply(params, images)[layer]
    return found


def _enlarged(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return np.asarray(jax.image.resize(jnp.asarray(values, jnp.float32), size, "linear"))
