"""Activation atlases against planted activations, and a small one made again from its files."""

from __future__ import annotations

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from networks import TOY_SIZE, toy
from PIL import Image

import featvis as fv
from featvis.cli.app import main
from featvis.methods.layout import cells_of, factors, lay_out, project
from featvis.pages import activation_site

pytestmark = pytest.mark.usefixtures("quick_to_compile")

COUNT, SIDE = 48, 3


def planted(rng):
    """A mixture of Gaussians on a grid in a plane of a space of 6, and which each code is of."""
    plane, _ = np.linalg.qr(rng.normal(size=(6, 2)))
    centres = np.array([(4.0 * x, 3.0 * y) for x in range(4) for y in range(3)]) @ plane.T
    which = np.arange(6000) % len(centres)
    return centres[which] + 0.05 * rng.normal(size=(6000, 6)), which, centres


def test_a_planted_mixture_gives_back_its_means():
    codes, which, centres = planted(np.random.default_rng(0))
    cells = cells_of(lay_out(project(codes)), codes, 7, 5)
    assert len(cells.places) == len(centres)
    for members, mean in zip(cells.members, cells.means, strict=True):
        (own,) = set(which[members])
        assert len(members) == np.sum(which == own)
        # Four standard errors of the mean.
        assert np.abs(mean - centres[own]).max() < 4 * 0.05 / np.sqrt(len(members))


def test_the_plane_has_x_to_the_right_and_y_upwards():
    points = np.array([[0.95, 0.1]] * 3 + [[0.1, 0.4]] * 2)
    cells = cells_of(points, np.arange(5.0)[:, None], 4, 1)
    assert cells.places.tolist() == [[2, 0], [3, 3]]
    assert cells.means.ravel().tolist() == [3.5, 1.0]
    assert [one.tolist() for one in cells.members] == [[3, 4], [0, 1, 2]]


def test_the_margins_of_the_plane_are_equal():
    plane = np.stack([np.linspace(0, 100, 101), np.linspace(7, -13, 101)], axis=1)
    points = lay_out(plane)
    # From 1 - 9.8 to 99 + 9.8 of 100.
    np.testing.assert_allclose(points[:, 0], (np.linspace(0, 100, 101) + 8.8) / 117.6, atol=1e-12)
    np.testing.assert_allclose(points[:, 1], points[::-1, 0], atol=1e-12)
    assert lay_out(np.array([[0.0, 5], [1, 5], [1e9, 5]]))[:, 1].tolist() == [0.5] * 3
    far = lay_out(np.array([[0.0, 0]] * 500 + [[1, 1]] * 500 + [[9e9, -9e9]]))
    assert far[-1].tolist() == [1, 0]


def test_one_factor_is_the_first_singular_vector():
    codes = np.random.default_rng(1).exponential(size=(80, 12))
    weights, directions = factors(codes, 1)
    left, sizes, right = np.linalg.svd(codes)
    np.testing.assert_allclose(directions[0], np.abs(right[0]), atol=1e-6)
    np.testing.assert_allclose(weights[:, 0], sizes[0] * np.abs(left[:, 0]), atol=1e-5)


def test_factors_of_signed_activations_are_the_planted_ones():
    rng = np.random.default_rng(2)
    # Each on channels of its own, so that there is one answer.
    planted = np.zeros((3, 9))
    for group in range(3):
        planted[group, 3 * group : 3 * group + 3] = rng.normal(size=3)
    planted /= np.linalg.norm(planted, axis=1)[:, None]
    codes = (rng.exponential(size=(60, 3)) * [3, 2, 1]) @ planted
    weights, directions = factors(codes, 3)
    assert weights.min() >= 0
    assert (np.sum(directions * planted, axis=1) > 0.998).all()
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert np.linalg.norm(weights @ directions - codes) < 0.01 * np.linalg.norm(codes)


# ---- a small one -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    return toy()


@pytest.fixture(scope="module")
def index(network, tmp_path_factory):
    pytest.importorskip("zarr")
    place = tmp_path_factory.mktemp("atlas")
    for number in range(COUNT):
        levels = np.random.default_rng(number).integers(0, 256, (*TOY_SIZE, 3), dtype=np.uint8)
        (place / "images").mkdir(exist_ok=True)
        Image.fromarray(levels).save(place / "images" / f"{number:03}.png")
    out = place / "index"
    return fv.index(network, place / "images", layers=["relu"], out=out, progress=False)


@pytest.fixture(scope="module")
def atlas(network, index):
    return fv.activation_atlas(
        network, "relu", index, side=SIDE, least=4, size=TOY_SIZE, steps=2, batch=4, attempts=2,
        progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def codes(network, index):
    images = np.stack([index.image(place) for place in range(COUNT)])
    a = np.asarray(network(images)["relu"]).reshape(COUNT, -1, 6)
    return a[np.arange(COUNT), index.positions("relu")]


@pytest.mark.thorough
def test_every_tile_is_the_mean_of_its_cell(atlas, codes):
    assert 4 <= len(atlas) <= SIDE**2
    order = [SIDE * tile.row + tile.column for tile in atlas.tiles]
    assert order == sorted(set(order))
    for tile in atlas.tiles:
        across, up = np.floor(np.minimum(atlas.points[tile.members], 0.999) * SIDE).T
        assert set(across) == {tile.column}
        assert set(up) == {SIDE - 1 - tile.row}
        np.testing.assert_allclose(tile.vector, codes[tile.members].mean(0), rtol=1e-4, atol=1e-5)
        assert tile.share == len(tile.members) / COUNT >= 4 / COUNT


def whitened(codes):
    moment = codes.T.astype(np.float64) @ codes / len(codes)
    return np.linalg.inv(moment + 1e-3 * np.diag(moment).mean() * np.eye(len(moment)))


def test_a_tiles_score_has_the_true_cosine_and_the_most_typical_come_first(atlas, codes, network):
    sharp = whitened(codes)

    def products(a, tile):
        dot = a @ sharp @ tile.vector
        own = tile.vector @ sharp @ tile.vector
        norms = np.sqrt(np.einsum("pi,ij,pj->p", a, sharp, a) * own)
        return dot / own, dot / np.where(norms > 0, norms, 1)

    for tile in atlas.tiles:
        a = np.asarray(network(tile.image[None])["relu"], np.float64).reshape(-1, 6)
        dot, cosine = products(a, tile)
        rim = float(fv.Boundary(1)({}, jnp.asarray(tile.image[None]))[0])
        wanted = np.mean(dot * np.maximum(0.1, cosine) ** 4) - rim
        assert tile.result.clean_scores[0] == pytest.approx(wanted, rel=1e-3, abs=1e-4)
        likeness = products(codes[tile.members], tile)[1]
        assert (np.diff(likeness) < 1e-4).all()


def test_a_tile_speaks_for_the_classes_that_lose_most_without_it(atlas, codes, network):
    # The scores are linear from the layer on: they lose what the activations contribute.
    lost = codes @ np.asarray(network.params["logits"]) / np.prod(TOY_SIZE)
    for tile in atlas.tiles:
        beyond = lost[tile.members].mean(0) - lost.mean(0)
        best = np.argsort(-beyond)[:3]
        wanted = {int(one): beyond[one] for one in best if beyond[one] > 0}
        assert dict(tile.classes) == pytest.approx(wanted, rel=1e-2, abs=1e-5)
        assert [atlas.class_name(one) for one, _ in tile.classes] == ["abcde"[i] for i in wanted]


@pytest.fixture(scope="module")
def groups(network, index):
    return fv.neuron_groups(
        network, "relu", index, groups=4, size=TOY_SIZE, steps=2, batch=4, progress=False
    )


@pytest.fixture(scope="module")
def site(atlas, groups, tmp_path_factory):
    return activation_site([atlas, groups], tmp_path_factory.mktemp("site") / "made").parent


@pytest.mark.thorough
def test_every_tile_of_the_site_replays_to_the_bit(atlas, groups, site, network):
    for folder, made in (("0-relu-pca", atlas), ("1-relu-groups", groups)):
        for number, tile in enumerate(made.tiles):
            name = f"{tile.row}-{tile.column}" if made is atlas else str(number)
            file = site / folder / f"toy_relu-{made.parted}-{name}.png"
            page = (site / folder / f"{name}.html").read_text(encoding="utf-8")
            assert f"featvis replay {file.name}" in page
            found = fv.replay(file, model=network).images
            np.testing.assert_array_equal(found, tile.result.images)


def test_a_tiles_page_has_its_classes_photographs_and_neurons(atlas, site):
    for tile in atlas.tiles:
        page = site / "0-relu-pca" / f"{tile.row}-{tile.column}.html"
        text = page.read_text(encoding="utf-8")
        assert f"Cell {tile.row}-{tile.column} of relu" in text
        for one, _ in tile.classes:
            assert f'<th scope="row">{"abcde"[one]}</th>' in text
        names = [atlas.index.files[place].stem for place in tile.members[:12]]
        places = [text.index(f">{name}<") for name in names]
        assert places == sorted(places)
        assert f"relu:{np.abs(tile.vector).argmax()}" in text


def test_groups_part_the_images_by_their_factors(groups, codes):
    weights, directions = factors(codes, 4)
    relative = weights / weights.max(0)
    assert sum(len(tile.members) for tile in groups.tiles) == COUNT
    for group, tile in enumerate(groups.tiles):
        assert (tile.row, tile.column) == divmod(group, 2)
        np.testing.assert_allclose(
            tile.vector, directions[group] * weights[:, group].max(), rtol=1e-3, atol=1e-5
        )
        assert set(relative[tile.members].argmax(1)) <= {group}
        assert (np.diff(relative[tile.members, group]) < 1e-6).all()


def test_what_is_asked_wrongly_is_said(network, index, monkeypatch, lite0):
    ask = {"size": TOY_SIZE, "steps": 1, "progress": False}
    with pytest.raises(fv.InputError, match="the fullest has"):
        fv.activation_atlas(network, "relu", index, side=20, least=40, **ask)
    with pytest.raises(fv.InputError, match="'pca', 'umap', not 'tsne'"):
        fv.activation_atlas(network, "relu", index, projection="tsne", **ask)
    with pytest.raises(fv.UnknownLayer, match="relu"):
        fv.activation_atlas(network, "rely", index, **ask)
    with pytest.raises(fv.InputError, match="toy with the weights"):
        fv.activation_atlas(lite0, "relu", index, **ask)
    with pytest.raises(fv.InputError, match="from 1 to 6, not 7"):
        fv.neuron_groups(network, "relu", index, groups=7, **ask)
    with pytest.raises(fv.InputError, match="nearest: steps"):
        fv.neuron_groups(network, "relu", index, groups=2, stepz=7)
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(fv.InputError, match=r"featvis\[umap\]"):
        fv.activation_atlas(network, "relu", index, projection="umap", **ask)


def test_the_command_writes_the_site_of_an_atlas(index, network, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("featvis.cli.natural.network_of", lambda given: (network, given.words[1:]))
    common = [
        "activation-atlas",
        "toy",
        "relu",
        str(index.store.path),
        "--size",
        "12x16",
        "--quiet",
    ]
    asked = [*common, "--steps", "2", "--side", "3", "--least", "4", "--groups", "4", "--json"]
    assert main([*asked, "--out", str(tmp_path / "site")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["site"] == str(tmp_path / "site" / "index.html")
    assert len(said["tiles"]["groups"]) == 4
    assert {(one["row"], one["column"]) for one in said["tiles"]["pca"]}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text").write_text("mine")
    assert main([*asked, "--out", str(tmp_path / "mine")]) == 2
    assert "is no site, and not empty" in capsys.readouterr().err
