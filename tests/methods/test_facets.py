"""Facets of units whose facets are known, and groups against scikit-learn's."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import featvis as fv
from featvis.cli.app import main
from featvis.methods.clusters import groups_of, k_means, principal_components, silhouette

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SIZE = (12, 12)
NORMS, COUNTS = (1.0, 1.4, 2.0, 3.0), (40, 25, 15, 10)


def gratings():
    """Four that are orthogonal, of norm 1, (4, 12, 12)."""
    y, x = np.mgrid[:12, :12]
    waves = [np.cos(2 * np.pi * (a * y + b * x) / 12) for a, b in ((0, 2), (2, 0), (2, 2), (2, -2))]
    return np.stack([wave / np.linalg.norm(wave) for wave in waves])


def apply(params, image):
    found = jnp.einsum("nhwc,khw->nk", image - 0.5, params)
    # A unit for any of them, one for the first alone, one that nothing excites, and one of a map.
    units = [found.max(1) - 0.2, found[:, 0] - 0.2, jnp.full(len(image), -1.0)]
    spread = jnp.broadcast_to(image.mean(-1, keepdims=True), (*image.shape[:3], 1))
    return {"map": spread, "templates": found, "unit": jnp.stack(units, 1)}


def network(norms=(2.0,) * 4):
    """Of templates with these norms."""
    params = jnp.asarray(gratings() * np.array(norms)[:, None, None], jnp.float32)
    return fv.from_function(apply, params, input=fv.Input(size=SIZE, channels=1), name="templates")


def photographs(counts, seed, noise=0.01):
    """So many noisy images of each template, and as many that are noise; in any order."""
    rng = np.random.default_rng(seed)
    which = np.repeat(np.arange(4), counts)
    gains = rng.uniform(0.8, 1.2, len(which))
    images = 0.5 + (gains[:, None, None] * gratings()[which])
    images = np.concatenate([images, np.full((20, *SIZE), 0.5)])
    images = np.clip(images + noise * rng.normal(size=images.shape), 0, 1)[..., None]
    return images[rng.permutation(len(images))].astype(np.float32)


OPTIONS = {
    "parameterization": fv.BoundedPixels(SIZE, 1, ball="l2", radius=1.3),
    "transform": "none",
    "optimizer": "sgd(0.004)",
    "steps": 400,
    "progress": False,
    "most": 200,
}


def cosines(images):
    """Of pictures with each of the templates."""
    rows = (images - 0.5).reshape(len(images), -1)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ gratings().reshape(4, -1).T


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("norms", "counts"), [((2.0,) * 4, (20,) * 4), (NORMS, COUNTS)], ids=["equal", "unequal"]
)
def test_the_maximum_of_four_templates_has_four_facets(norms, counts):
    model = network(norms)
    for seed in range(5):
        found = fv.facets(model, "unit:0", photographs(counts, seed), seed=seed, **OPTIONS)
        assert len(found) == 4
        alike = cosines(found.images)
        assert sorted(alike.argmax(1)) == [0, 1, 2, 3]
        assert alike.max(1).min() > 0.99
        assert found.distinct.all()
        assert (found.scores >= found.natural * 0.99).all()
        np.testing.assert_allclose(
            sorted(found.shares), sorted(np.array(counts) / sum(counts)), atol=1e-9
        )


@pytest.mark.thorough
def test_a_unit_of_one_thing_has_one_facet():
    found = fv.facets(network(), "unit:1", photographs((60, 0, 0, 0), 0), **OPTIONS)
    assert len(found) == 1
    assert cosines(found.images)[0, 0] > 0.99
    assert found.silhouettes[2].above < 4


@pytest.fixture(scope="module")
def four():
    return fv.facets(network(), "unit:0", photographs(COUNTS, 0), 4, **OPTIONS)


def test_facets_are_made_again_from_their_file(four, tmp_path):
    path = four.save(tmp_path / "facets")
    record = json.loads(path.with_suffix(".json").read_text())
    assert [one["share"] for one in record["facets"]] == four.shares.tolist()
    again = fv.replay(tmp_path / "facets-pictures.png", model=network(), progress=False)
    np.testing.assert_array_equal(again.images, four.images)
    with Image.open(path) as sheet:
        assert sheet.size == four.sheet().size
    assert "<img" in four._repr_html_()
    page = fv.facet_report(four, tmp_path / "report")
    assert page.read_text().count("Facet ") >= 4


@pytest.mark.thorough
@pytest.mark.parametrize("preset", ["nguyen2016_mean", "nguyen2016_centre"])
def test_the_schedules_of_the_paper_keep_each_picture_at_its_template(preset):
    images = photographs((20,) * 4, 0)
    options = {"preset": preset, "most": 200, "steps": 40, "progress": False, "transform": "none"}
    found = fv.facets(network(), "unit:0", images, 4, **options)
    alike = cosines(found.images - found.images.mean((1, 2, 3), keepdims=True) + 0.5)
    assert sorted(alike.argmax(1)) == [0, 1, 2, 3]
    assert alike.max(1).min() > 0.4  # the denoising takes contrast


@pytest.mark.thorough
def test_small_groups_are_dropped_and_pictures_that_are_not_apart_are_named():
    images = photographs((30, 30, 3, 0), 0)
    with pytest.warns(fv.FacetWarning, match=r"1 of 3 groups have fewer than 5 .* \(3\)"):
        found = fv.facets(network(), "unit:0", images, 3, **OPTIONS)
    assert len(found) == 2
    assert found.dropped == (3,)
    assert (found.groups == -1).sum() == 3
    # Of one thing, cut in two: both pictures are of it.
    with pytest.warns(fv.FacetWarning, match="not apart"):
        fv.facets(network(), "unit:1", photographs((60, 0, 0, 0), 1), 2, pull=0, **OPTIONS)


def test_the_start_is_centred_on_what_excites_the_unit():
    rng = np.random.default_rng(0)
    places = rng.integers(3, 9, (12, 2))
    images = np.full((12, *SIZE, 1), 0.3, np.float32)
    images += rng.uniform(0, 0.1, (12, 1, 1, 1)).astype(np.float32)
    for image, (y, x) in zip(images, places, strict=True):
        image[y, x] = 1
    found = fv.facets(
        network(), "map:0", images, 1, code="templates", nearest=12, **{**OPTIONS, "steps": 1}
    )
    middle = np.unravel_index(found.starts[0, ..., 0].argmax(), SIZE)
    assert middle == (6, 6)
    assert found.starts[0, 6, 6, 0] == 1


def test_what_cannot_have_facets_says_why(tmp_path):
    model, images = network(), photographs((4, 3, 0, 0), 0)
    with pytest.raises(fv.InputError, match=r"4 facets need at least 20 .* 5 for each; 7 of 27 do"):
        fv.facets(model, "unit:0", images, 4, **OPTIONS)
    with pytest.raises(fv.InputError, match=r"none of 27 images excites unit:2: .* is -1"):
        fv.facets(model, "unit:2", images, **OPTIONS)
    same = np.repeat(images[:1], 30, axis=0) * 0 + 0.5 + gratings()[0][None, ..., None]
    with pytest.raises(fv.InputError, match="are one and the same to templates"):
        fv.facets(model, "unit:0", np.clip(same, 0, 1), **OPTIONS)
    with pytest.raises(fv.InputError, match="facets are of one channel or class"):
        fv.facets(model, "unit:[0, 1]", images)
    with pytest.raises(fv.UnknownLayer, match="nearest: unit"):
        fv.facets(model, "unitt:0", images)
    with pytest.raises(fv.UnknownLayer, match="templates"):
        fv.facets(model, "unit:0", images, code="template")
    with pytest.raises(fv.InputError, match="unknown preset 'modrn'; nearest: modern"):
        fv.facets(model, "unit:0", images, preset="modrn")
    with pytest.raises(fv.InputError, match="n_facets is an integer of at least 1"):
        fv.facets(model, "unit:0", images, 0)
    for given, message in [
        ({"size": 12}, r"size is \(height, width\), two positive integers, not 12"),
        ({"seed": "a"}, "seed is an integer of at least 0, not 'a'"),
        ({"steps": 0}, "steps must be an integer of at least 1; got 0"),
        ({"code": ""}, "unknown layer ''"),
    ]:
        with pytest.raises((fv.InputError, fv.UnknownLayer), match=message):
            fv.facets(model, "unit:2", images, **given)  # before the images are looked at


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("photographs")
    for number, image in enumerate(photographs((8, 8, 8, 8), 3)):
        Image.fromarray((image[..., 0] * 255).round().astype(np.uint8)).save(
            path / f"{number:02}.png"
        )
    return path


def test_a_folder_and_its_index_have_the_same_facets(folder, tmp_path):
    pytest.importorskip("zarr")
    model = network()
    made = fv.index(model, folder, layers="unit", out=tmp_path / "index", progress=False)
    (folder / "bad.png").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match=r"left out: .*bad\.png"):
        of_folder = fv.facets(model, "unit:0", folder, 4, **OPTIONS)
    (folder / "bad.png").unlink()
    for given in (made, tmp_path / "index"):
        of_index = fv.facets(model, "unit:0", given, 4, **OPTIONS)
        assert of_index.excited.names == of_folder.excited.names
        np.testing.assert_array_equal(of_index.groups, of_folder.groups)
        np.testing.assert_array_equal(of_index.images, of_folder.images)
    with pytest.raises(fv.InputError, match="the network is templates with"):
        fv.facets(network(NORMS), "unit:0", made, 4, **OPTIONS)
    with pytest.raises(fv.UnknownLayer, match="templates"):
        fv.facets(model, "templates:0", made, 4, **OPTIONS)


@pytest.mark.thorough
def test_command(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("featvis.cli.output.enable_cache", lambda: None)
    place = ("--model", "test_facets:network", "--steps", "3", "--transform", "none", "--quiet")
    main(["facets", "unit:0", str(folder), "--facets", "4", *place, "-o", "a.png",
          "--report", "page"])  # fmt: skip
    out = capsys.readouterr().out
    assert out.count("facet ") == 4
    assert (tmp_path / "page" / "index.html").exists()
    main(["facets", "unit:0", str(folder), *place, "--json"])
    assert len(json.loads(capsys.readouterr().out)["facets"]) == 4
    assert main(["facets", "unit:0", *place]) == 2
    assert "facets takes UNIT IMAGES beside --model, as in:" in capsys.readouterr().err


# ---- groups --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codes():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(3 * i, 1, (20 + 10 * i, 6)) for i in range(3)])


def test_principal_components_keep_distances(codes):
    found = principal_components(codes, 50)
    assert found.shape == codes.shape
    centred = codes - codes.mean(0)
    np.testing.assert_allclose(found @ found.T, centred @ centred.T, atol=1e-9)
    assert (np.diff(found.var(0)) < 0).all()
    few = principal_components(codes, 2)
    values = np.linalg.eigvalsh(np.cov(codes.T, bias=True))[::-1]
    np.testing.assert_allclose(few.var(0), values[:2], rtol=1e-9)


def test_groups_are_those_of_scikit_learn(codes):
    cluster = pytest.importorskip("sklearn.cluster")
    metrics = pytest.importorskip("sklearn.metrics")
    found = k_means(codes, 3, 0)
    expected = cluster.KMeans(3, n_init=10, random_state=0).fit_predict(codes)
    assert metrics.adjusted_rand_score(found, expected) == 1
    assert (np.diff(np.bincount(found)) <= 0).all()
    assert silhouette(codes, found) == pytest.approx(metrics.silhouette_score(codes, found))
    alone = found.copy()
    alone[0] = 3
    assert silhouette(codes, alone) == pytest.approx(metrics.silhouette_score(codes, alone))


def test_the_number_of_groups_is_found(codes):
    labels, found = groups_of(codes, None, 6, 0)
    assert labels.max() + 1 == 3
    assert found[3].above > 10
    for seed in range(3):
        one = np.random.default_rng(seed).normal(size=(60, 20)) * np.linspace(3, 0.1, 20)
        assert groups_of(one, None, 6, seed)[0].max() == 0
