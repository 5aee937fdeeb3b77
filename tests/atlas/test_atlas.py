"""Atlases: what is made, what does not depend on what, and what survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import networks
import numpy as np
import pytest
from atlases import IMAGES, color, made_up
from PIL import Image

import featvis as fv
from featvis.atlas import store as stores
from featvis.atlas.work import unit_seed
from featvis.errors import InputError, OutputError

pytestmark = pytest.mark.usefixtures("quick_to_compile")

OPTIONS = {
    "size": networks.TOY_SIZE,
    "steps": 4,
    "batch": 4,
    "parameterization": "pixels",
    "transform": "none",
    "progress": False,
}


@pytest.fixture(scope="module")
def toy():
    return networks.toy()


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """All six units of a layer, two seeds, the negative, and two that differ."""
    path = tmp_path_factory.mktemp("atlases") / "whole"
    return fv.atlas(toy, "relu", path, seeds=2, negative=True, diverse=2, **OPTIONS)


def pictures(atlas):
    """Every picture by its unit, role and place."""
    return {(one.unit, one.role, one.place): one for unit in atlas for one in unit.pictures}


def same(one, other, *, levels=0):
    assert np.abs(one.image.astype(int) - other.image).max() <= levels
    np.testing.assert_allclose(one.clean_score, other.clean_score, rtol=1e-5)


def test_a_picture_is_that_of_its_seed_alone(toy, made):
    """The independent truth: a run of one image with the unit's own seed."""
    for unit in (0, 5):
        alone = fv.synthesize(
            toy, fv.Channel("relu", unit), "pixels", seed=[unit_seed(0, "relu", unit)],
            steps=4, transform="none", progress=False,
        )  # fmt: skip
        picture = made.unit("relu", unit).picture
        levels = np.round(alone.images[0] * 255)
        assert np.abs(picture.image - levels).max() <= 1
        np.testing.assert_allclose(picture.clean_score, alone.clean_scores[0], rtol=1e-5)


def test_what_an_atlas_has(toy, made):
    assert len(made) == 6
    unit = made.unit("relu", 3)
    kinds = [(one.role, one.place) for one in unit.pictures]
    assert kinds == [
        ("picture", 0), ("picture", 1), ("negative", 0), ("diverse", 0), ("diverse", 1)
    ]  # fmt: skip
    scores = [one.clean_score for one in unit.of("picture")]
    assert unit.clean_score == scores[0]
    np.testing.assert_allclose(unit.spread, np.std(scores, ddof=1))
    images = np.stack([one.image for one in unit.pictures]) / np.float32(255)
    means = np.asarray(toy(images)["relu"][..., 3]).mean((1, 2))
    np.testing.assert_allclose(means, [one.clean_score for one in unit.pictures], atol=2e-3)
    assert unit.negative.clean_score < unit.clean_score
    table = made.table("relu")
    np.testing.assert_array_equal(table["unit"], range(6))
    assert table["clean_score"][3] == unit.clean_score


def test_batches_order_and_what_else_is_made_do_not_matter(toy, made, tmp_path):
    fv.atlas(toy, "relu", tmp_path / "some", units=[5], **OPTIONS)
    some = fv.atlas(toy, "relu", tmp_path / "some", units="2-3", **OPTIONS)
    some = fv.atlas(toy, "relu", tmp_path / "some", units=[3, 0], **OPTIONS)
    assert some.units("relu").tolist() == [0, 2, 3, 5]
    whole = pictures(made)
    for key, picture in pictures(some).items():
        same(picture, whole[key], levels=1)


def test_a_layer_is_one_program(toy, made, tmp_path):
    from compiles import compiles_of

    with compiles_of() as compiled:
        fv.atlas(toy, "relu", tmp_path / "again", units=[1], seed=3, **OPTIONS)
    assert not compiled


def test_every_tile_replays_to_the_bit(toy, made, tmp_path):
    for number, picture in enumerate(made.unit("relu", 4).pictures):
        path = picture.save(tmp_path / f"{number}.png")
        again = fv.replay(path, model=toy, progress=False)
        levels = np.round(again.images[0] * 255).astype(np.uint8)
        np.testing.assert_array_equal(levels, picture.image)
    assert picture.command == "featvis replay toy_relu-4-diverse-1.png"
