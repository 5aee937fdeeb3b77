"""What do the middle layers of EfficientNet-Lite0 see, all over the space of their activations?

Paper: Carter, Armstrong, Schubert, Johnson & Olah 2019, "Activation Atlas".
Command: pip install ".[index,umap]" && python experiments/activation_atlas.py PHOTOGRAPHS -o OUT
    (--quick for small pictures of a coarse grid, by principal components alone)
Runtime: five minutes of processor time for a layer (36 minutes beside much other work on two cores)
What it showed: of `block8`, with 800 photographs and a grid of 8 x 8, 38 cells by principal
    components, 43 by UMAP and 16 groups of neurons. All pictures but one by UMAP are nearest to
    their own tile of all, by the whitened cosine: the pictures are of their cells. By UMAP fur and
    eyes, grass and ground, bars and grids lie together; by two principal components neighbours are
    less alike. The classes that a cell speaks for are weakly told: one position of `block8` moves
    a score by hundredths.
"""

from __future__ import annotations

import importlib.util
import time

import numpy as np
import studies

import featvis as fv
from featvis.pages import activation_site

SIZE = (160, 160)


def own_first(atlas: fv.methods.ActivationAtlas) -> tuple[float, float]:
    """Of how many tiles the picture is nearest to their own activations, and the mean rank.

    By the whitened cosine of the picture's mean activations with each tile's; of n tiles the mean
    rank by chance is (n + 1) / 2.
    """
    codes = np.concatenate(list(atlas.index.vectors(atlas.layer)))
    sharp = np.asarray(fv.precision(codes))
    vectors = np.stack([tile.vector for tile in atlas.tiles])
    seen = np.stack(
        [np.asarray(atlas.model(tile.image[None])[atlas.layer]) for tile in atlas.tiles]
    )
    seen = seen.reshape(len(seen), -1, seen.shape[-1]).mean(1)
    norms = np.sqrt(np.einsum("nd,nd->n", vectors @ sharp, vectors))
    likeness = seen @ sharp @ vectors.T / norms
    ranks = 1 + (likeness > np.diag(likeness)[:, None]).sum(1)
    return float(np.mean(ranks == 1)), float(np.mean(ranks))


def main() -> int:
    """Make the atlases and the groups, and say how far their pictures are their own."""
    parser = studies.CommandLine(
        __doc__,
        "activation_atlas",
        folder="photographs",
        required=True,
        needs=("zarr",),
        quick="one layer, 64 steps, a grid of 5 x 5",
        seed="everything random",
    )
    parser.add_argument("--layers", nargs="+", default=["block8", "block12"])
    options = parser.read()
    started = time.perf_counter()
    model = fv.load("efficientnet_lite0")
    layers = options.layers[:1] if options.quick else options.layers
    index = fv.index(
        model, options.folder, layers=layers, size=SIZE, out=options.out / "index",
        progress=False,
    )  # fmt: skip
    run = {"seed": options.seed, "progress": False}
    run |= {"steps": 64, "size": (64, 64)} if options.quick else {"attempts": 2}
    projections = ["pca"]
    if not options.quick and importlib.util.find_spec("umap") is not None:
        projections.append("umap")
    made = []
    for layer in layers:
        for projection in projections:
            side = 5 if options.quick else 8
            made.append(
                fv.activation_atlas(model, layer, index, projection=projection, side=side, **run)
            )
        made.append(fv.neuron_groups(model, layer, index, groups=6 if options.quick else 16, **run))
        for one in made[-len(projections) - 1 :]:
            share, rank = own_first(one)
            print(f"{one!r}: {share:.0%} nearest to their own tile, mean rank {rank:.1f}")
    page = activation_site(made, options.out / "site")
    studies.finish(started, page, len(index))
    return 0


if __name__ == "__main__":
    studies.run(main)
