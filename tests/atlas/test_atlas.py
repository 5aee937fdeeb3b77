"""Atlases: what is made, what does not depend on what, and what survives."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import networks
import numpy as np
import pytest
from atlases import made_up
from compiles import Compiled
from PIL import Image

import featvis as fv
from featvis import stores
from featvis.atlas.work import unit_seed
from featvis.errors import InputError, OutputError
from objectives import UnknownLayer

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


@pytest.mark.thorough
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
    with Compiled() as compiled:
        fv.atlas(toy, "relu", tmp_path / "again", units=[1], seed=3, **OPTIONS)
    assert not compiled.steps


def test_every_tile_replays_to_the_bit(toy, made, tmp_path):
    for number, picture in enumerate(made.unit("relu", 4).pictures):
        path = picture.save(tmp_path / f"{number}.png")
        again = fv.replay(path, model=toy, progress=False)
        levels = np.round(again.images[0] * 255).astype(np.uint8)
        np.testing.assert_array_equal(levels, picture.image)
    assert picture.command == "featvis replay toy_relu-4-diverse-1.png"


# ---- going on ------------------------------------------------------------------------------


def written(path):
    """The records of the batches of a store, and their chunks, by name."""
    chunks = sorted(path.glob("pictures/c/*/0/0/0"))
    records = sorted(path.glob("batches/*.json"))
    return {str(one): one.read_bytes() for one in (*records, *chunks)}


def test_more_seeds_reuse_what_is_there(toy, made, tmp_path):
    path = tmp_path / "more"
    fv.atlas(toy, "relu", path, units="0-4", **OPTIONS)
    before = written(path)
    more = fv.atlas(toy, "relu", path, seeds=2, units="0-4", **OPTIONS)
    assert before.items() < written(path).items()
    whole = pictures(made)
    assert len(pictures(more)) == 10
    for key, picture in pictures(more).items():
        same(picture, whole[key], levels=1)


def test_more_layers_reuse_what_is_there(toy, made, tmp_path):
    path = tmp_path / "layers"
    fv.atlas(toy, "relu", path, units="0-3", **OPTIONS)
    before = written(path)
    more = fv.atlas(toy, ["conv", "relu"], path, units="0-3", **OPTIONS)
    assert before.items() < written(path).items()
    assert [batch.layer for batch in more.store.batches] == ["relu", "conv"]
    assert list(more.layers) == list(fv.Atlas.open(path).layers) == ["conv", "relu"]
    whole = pictures(made)
    for key, picture in pictures(more).items():
        if picture.layer == "relu":
            same(picture, whole[key], levels=1)


@pytest.fixture
def nobody_may_write(monkeypatch):
    """Makes every disk read-only, for root too, whom permissions do not stop."""

    def refused(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(stores.Place, "writable", False)
    monkeypatch.setattr(stores, "write_file", refused)
    monkeypatch.setattr(stores.FileLock, "acquire", refused)


@pytest.mark.usefixtures("nobody_may_write")
def test_a_complete_atlas_on_a_read_only_disk_is_one(toy, made, tmp_path):
    path = made.store.place.path
    again = fv.atlas(toy, "relu", path, seeds=2, negative=True, diverse=2, **OPTIONS)
    assert len(pictures(again)) == 5 * 6
    assert len(fv.atlas(toy, "relu", path, units="2-3", **OPTIONS)) == 6
    assert len(fv.sheet(toy, "relu:*", path, **OPTIONS)) == 6
    assert again.verify() == []
    assert fv.atlas_site(path, tmp_path / "site", progress=False).is_file()
    for more in ({"seeds": 3}, {"layers": ["conv", "relu"]}):
        with pytest.raises(OutputError, match=r"cannot write .*whole: Read-only file system"):
            fv.atlas(toy, **{"layers": "relu", "store": path, **OPTIONS, **more})


def test_a_complete_atlas_is_one_while_somebody_else_writes(toy, made):
    with made.store.place.locked():
        assert len(fv.atlas(toy, "relu", made.store.place.path, **OPTIONS)) == 6
        with pytest.raises(InputError, match="somebody else is writing into"):
            fv.atlas(toy, "relu", made.store.place.path, seeds=3, **OPTIONS)


def test_what_another_process_added_is_whole(toy, tmp_path):
    """The array of pictures is longer than when it was first read."""
    fv.atlas(toy, "relu", tmp_path / "store", units=[0], **OPTIONS)
    opened = fv.Atlas.open(tmp_path / "store")
    (before,) = opened.unit("relu", 0).pictures
    assert before.image.any()
    fv.atlas(toy, "relu", tmp_path / "store", seeds=3, **OPTIONS)
    assert opened.verify() == []
    assert len(pictures(opened)) == 18
    assert all(one.image.any() for one in pictures(opened).values())


def test_a_corrupt_chunk_is_found_and_made_again(toy, made, tmp_path):
    path = tmp_path / "corrupt"
    before = pictures(fv.atlas(toy, "relu", path, seeds=2, **OPTIONS))
    kept = {key: (one.image, one.clean_score) for key, one in before.items()}
    chunk = path / "pictures" / "c" / "1" / "0" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    opened = fv.Atlas.open(path)
    with pytest.raises(InputError, match=r"rows 4 to 7, of relu.*featvis atlas verify"):
        [one.image for one in pictures(opened).values()]
    record = path / "batches" / "0000000008.json"
    record.write_bytes(record.read_bytes()[:50])
    assert opened.verify() == [
        "the record batches/0000000008.json",
        "the batch at row 4, picture of relu:0-5",
    ]
    assert opened.verify() == []
    again = fv.atlas(toy, "relu", path, seeds=2, **OPTIONS)
    assert again.verify() == []
    for key, picture in pictures(again).items():
        assert np.abs(picture.image.astype(int) - kept[key][0]).max() <= 1


@pytest.mark.parametrize("content", ["[1]", "{", '{"zarr_format": 3}'])
def test_a_damaged_description_of_the_array_costs_no_picture(tmp_path, content):
    store = made_up(tmp_path / "mended")
    (tmp_path / "mended" / "pictures" / "zarr.json").write_text(content)
    opened = fv.Atlas.open(tmp_path / "mended")
    with pytest.raises(InputError, match="featvis atlas verify"):
        opened.block(store.batches[0])
    (said,) = opened.verify()
    assert "which is now written again" in said
    assert opened.verify() == []
    assert opened.store.batches == store.batches


DAMAGE = {
    "cut": lambda content: content[:100],
    "empty": lambda content: b"",
    "no record": lambda content: b"[1]",
    "of nothing": lambda content: b'{"zarr_format": 3}',
    "other settings": lambda content: content.replace(b'"steps": 16', b'"steps": 61'),
    "gone": lambda content: None,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_settings_are_known_from_their_copy(tmp_path, how):
    store = made_up(tmp_path / "store")
    root = tmp_path / "store" / "zarr.json"
    content = root.read_bytes()
    root.unlink()
    if (damaged := DAMAGE[how](content)) is not None:
        root.write_bytes(damaged)
    opened = fv.Atlas.open(tmp_path / "store")
    assert opened.settings == store.settings
    assert opened.store.unread.startswith("damaged settings, of which the copy is read: `featvis ")
    assert opened.verify() == ["the settings, which are now written again from their copy"]
    assert root.read_bytes() == content
    assert opened.store.unread == ""
    assert opened.verify() == []


def test_damaged_settings_without_a_copy_are_one_line(tmp_path):
    made_up(tmp_path / "store")
    root, copy = tmp_path / "store" / "zarr.json", tmp_path / "store" / "settings.json"
    content = root.read_bytes()
    copy.write_bytes(copy.read_bytes().replace(b'"steps": 16', b'"steps": 61'))
    for damaged in (b"{", content.replace(b'"steps": 16', b'"steps": 61')):
        root.write_bytes(damaged)
        with pytest.raises(InputError, match=r"zarr\.json, .*: put a copy of it back, or give"):
            fv.Atlas.open(tmp_path / "store")
    root.write_bytes(content)
    assert fv.Atlas.open(tmp_path / "store").verify() == []
    root.unlink()
    assert fv.Atlas.open(tmp_path / "store").store.torn  # now the copy is whole again


def test_a_rerun_writes_damaged_settings_again(toy, tmp_path):
    path = tmp_path / "store"
    fv.atlas(toy, "relu", path, units=[0], **OPTIONS)
    content, before = (path / "zarr.json").read_bytes(), written(path)
    (path / "zarr.json").write_bytes(content[:50])
    with pytest.raises(InputError, match=r"other settings \(steps: 4 there, 5 asked for"):
        fv.atlas(toy, "relu", path, units=[0], **{**OPTIONS, "steps": 5})
    fv.atlas(toy, "relu", path, units=[0], **OPTIONS)
    assert (path / "zarr.json").read_bytes() == content
    assert written(path) == before


def test_damaged_natural_images_are_found(tmp_path):
    made_up(tmp_path / "store", {"a": 3, "b": 3}, photographs=tmp_path / "photographs")
    ((chunk,), record) = (
        (tmp_path / "store" / "natural" / "a").glob("*/mean/c/0"),
        tmp_path / "store" / "natural" / "b" / "record.json",
    )
    chunk.write_bytes(chunk.read_bytes()[:-3])
    record.write_text('{"row": 1}')
    opened = fv.Atlas.open(tmp_path / "store")
    for layer in "ab":
        with pytest.raises(InputError, match=f"the natural images of {layer}: .*atlas verify"):
            opened.unit(layer, 0)
    assert opened.verify() == ["the natural images of a", "the natural images of b"]
    assert opened.verify() == []


def test_a_store_that_nobody_may_write_is_verified_all_the_same(tmp_path, monkeypatch):
    opened = fv.Atlas(made_up(tmp_path / "kept"))
    monkeypatch.setattr(type(opened.store.place), "writable", False)
    assert opened.verify() == []
    record = tmp_path / "kept" / "batches" / "0000000000.json"
    record.write_text("[]")
    (tmp_path / "kept" / "zarr.json").write_text("")
    said = r"read-only: the record batches/0000000000\.json; the settings"
    with pytest.raises(OutputError, match=said):
        opened.verify()
    assert record.read_text() == "[]"


# ---- what is refused -----------------------------------------------------------------------


def test_another_atlas_is_refused_with_what_differs(toy, made):
    path = str(made.store.place.path)
    with pytest.raises(
        InputError, match=r"steps: 4 there, 5 asked for; optimizer: the default there"
    ):
        fv.atlas(toy, "relu", path, **{**OPTIONS, "steps": 5, "optimizer": "adam(0.1)"})
    with pytest.raises(InputError, match=r"batch: 4 there, 3 asked for"):
        fv.atlas(toy, "relu", path, **{**OPTIONS, "batch": 3})
    other = dataclasses.replace(toy, digest="1" * 64)
    with pytest.raises(InputError, match=r"weights: 000000000000 there, 111111111111 asked for"):
        fv.atlas(other, "relu", path, **OPTIONS)
    # The same network by another name.
    assert len(fv.atlas(dataclasses.replace(toy, name="same"), "relu", path, **OPTIONS)) == 6


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"units": "0-9"}, r"relu has the units 0 to 5; got 0-9"),
        ({"units": "3-1"}, r"from the lower to the higher, as 1-3; got 3-1"),
        ({"units": 3}, r"a list of numbers, not 3"),
        ({"layers": None}, r"a list of names of layers, not None"),
        ({"seeds": 0}, r"atlas: seeds is an integer of at least 1, not 0"),
        ({"workers": 0}, r"workers is an integer of at least 1"),
        ({"cores": 0}, r"cores is an integer of at least 1"),
        ({"workers": 2}, r"workers is of the engine 'ray'; got 2 for 'local'"),
        ({"store": ""}, r"a folder or at an address; got ''"),
        ({"store": None}, r"a folder or at an address; got None"),
        ({"units": "x"}, r"units are numbers, as 0-63,70; got 'x'"),
        ({"objective": "layer"}, r"'channel', 'neuron', 'both'"),
        ({"facets": 2}, r"give an index"),
        ({"diverse": 1}, r"2 or more"),
        ({"engine": "dask"}, r"'local', 'ray'"),
        ({"stepz": 1}, r"nearest: steps"),
        ({"index": "nowhere"}, r"nowhere is no index"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(toy, tmp_path, changed, said):
    with pytest.raises(InputError, match=said):
        fv.atlas(toy, **{"layers": "relu", "store": tmp_path / "none", **OPTIONS, **changed})
    assert not (tmp_path / "none").exists()


def test_without_ray_nothing_is_made(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"the engine ray needs the package ray: pip install"):
        fv.atlas(toy, "relu", tmp_path / "none", engine="ray", **OPTIONS)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_name_that_no_folder_can_have_is_one_line(name):
    with pytest.raises(InputError, match="is no atlas"):
        fv.Atlas.open(name)
    with pytest.raises(OutputError, match="cannot write"):
        made_up(name)


def test_a_file_is_no_atlas_and_stays(tmp_path):
    (tmp_path / "thesis").write_text("mine")
    with pytest.raises(InputError, match="is no atlas, and not empty"):
        made_up(tmp_path / "thesis")
    assert (tmp_path / "thesis").read_text() == "mine"


def test_a_layer_that_an_atlas_does_not_have_is_said_everywhere(made):
    for ask in (made.units, made.table, made.counts, made.clean_scores):
        with pytest.raises(UnknownLayer, match="unknown layer 'relou'; nearest: relu"):
            ask("relou")
    with pytest.raises(UnknownLayer):
        made.label("relou", 0)
    with pytest.raises(UnknownLayer):
        next(made.blocks("relou"))


def test_a_vector_has_no_neuron_in_the_middle(toy, tmp_path):
    with pytest.raises(InputError, match=r"logits has no map"):
        fv.atlas(toy, "logits", tmp_path / "none", objective="both", **OPTIONS)


def test_a_lock_does_not_outlive_its_owner(tmp_path):
    path = tmp_path / "locked"
    made_up(path)
    held = "import sys, fcntl; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); input()"  # noqa: E501
    owner = subprocess.Popen(
        [sys.executable, "-c", held, str(path / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    owner.stdout.readline()
    with pytest.raises(InputError, match="somebody else is writing into"):
        fv.Atlas.open(path).verify()
    owner.kill()
    owner.communicate()
    assert fv.Atlas.open(path).verify() == []


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    store = made_up(tmp_path / "full")
    batch, (*_, other) = store.batches[0], store.batches
    images = np.ones((store.rows, *store.shape), np.uint8)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    import zarr.storage._local as local

    monkeypatch.setattr(local, "_put", full)
    with pytest.raises(OutputError, match=r"cannot write .*: No space left on device"):
        store.append(batch.__class__(**{**vars(batch), "row": store.next_row()}), images, {})
    monkeypatch.undo()
    assert fv.Atlas.open(tmp_path / "full").store.batches[-1] == other
    assert list(store.damaged()) == []


def test_an_object_store_is_as_good_as_a_folder(toy, made):
    pytest.importorskip("fsspec")
    address = "memory://featvis/atlas"
    fv.atlas(toy, "relu", address, units="0-2", **OPTIONS)
    there = fv.atlas(toy, "relu", address, units="0-3", **OPTIONS)
    assert there.verify() == []
    whole = pictures(made)
    for key, picture in pictures(fv.Atlas.open(address)).items():
        same(picture, whole[key], levels=1)


# ---- natural images ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(14):
        levels = rng.integers(0, 256, (*networks.TOY_SIZE, 3), np.uint8)
        Image.fromarray(levels).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def index(toy, photographs, tmp_path_factory):
    place = tmp_path_factory.mktemp("indices") / "photographs"
    return fv.index(toy, photographs, layers=["relu", "dead"], out=place, progress=False)


@pytest.fixture(scope="module")
def natural(toy, index, tmp_path_factory):
    path = tmp_path_factory.mktemp("natural") / "store"
    fv.atlas(toy, "relu", path, **OPTIONS)
    return fv.atlas(toy, "relu", path, index=index, **OPTIONS)


def test_natural_images_of_a_unit(toy, index, natural):
    found = natural
    images = np.stack([index.image(place) for place in range(14)])
    maps = np.asarray(toy(images)["relu"])
    highest, means = maps.max((1, 2)), maps.mean((1, 2))
    for number in range(6):
        natural = found.unit("relu", number).natural
        order = np.argsort(-highest[:, number], kind="stable")
        np.testing.assert_array_equal(natural.highest, order[:9])
        np.testing.assert_allclose(natural.highest_scores, highest[order[:9], number], rtol=1e-5)
        np.testing.assert_array_equal(natural.lowest[0], order[-1])
        assert natural.images == natural.histogram.sum() == 14
        counts, _ = np.histogram(highest[:, number], natural.edges)
        np.testing.assert_array_equal(natural.histogram, counts)
        score = found.unit("relu", number).clean_score
        assert natural.percentile == pytest.approx(100 * (means[:, number] < score).mean())
        correlations = np.corrcoef(highest.T)[number]
        correlations[number] = -2
        nearest = int(np.argmax(correlations))
        assert natural.nearest[0] == f"relu:{nearest}"
        np.testing.assert_allclose(natural.correlations[0], correlations[nearest], rtol=1e-4)
        assert Path(natural.files[int(order[0])]).name == f"{order[0]:02}.png"
        assert not natural.dead


def test_more_images_describe_again_and_make_nothing(toy, index, photographs, tmp_path):
    path = tmp_path / "images"
    found = fv.atlas(toy, "relu", path, index=index, **OPTIONS)
    before, record = written(path), path / "natural" / "relu" / "record.json"
    time_of = record.stat().st_mtime_ns
    fv.atlas(toy, "relu", path, index=index, **OPTIONS)
    assert record.stat().st_mtime_ns == time_of  # of the same images nothing is written
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    Image.new("RGB", networks.TOY_SIZE[::-1], "white").save(folder / "more.png")
    more = fv.index(toy, folder, layers=["relu"], out=tmp_path / "more", progress=False)
    found = fv.atlas(toy, "relu", path, index=more, **OPTIONS)
    assert found.unit("relu", 0).natural.images == 15
    assert written(path) == before


@pytest.mark.usefixtures("nobody_may_write")
def test_natural_images_of_a_complete_atlas_need_no_disk(toy, natural, index):
    found = fv.atlas(toy, "relu", natural.store.place.path, index=index, **OPTIONS)
    assert found.unit("relu", 0).natural.images == 14


@pytest.mark.thorough
def test_facets_are_those_of_the_images_that_excite_a_unit(toy, index, tmp_path):
    options = {**OPTIONS, "units": [1], "index": index}
    fv.atlas(toy, "relu", tmp_path / "facets", **options)
    before = written(tmp_path / "facets")
    found = fv.atlas(toy, "relu", tmp_path / "facets", facets=1, **options)
    assert before.items() < written(tmp_path / "facets").items()
    (facet,) = found.unit("relu", 1).of("facet")
    image = facet.image.astype(np.float32)[None] / 255
    peak = np.asarray(toy(image)["relu"])[..., 1].max()
    assert facet.clean_score == pytest.approx(peak, abs=0.02)
    again = fv.replay(facet.save(tmp_path / "facet.png"), model=toy, progress=False)
    np.testing.assert_array_equal(np.round(again.images[0] * 255), facet.image)
    with pytest.warns(UserWarning, match="no facets: 3 facets need at least 15 images"):
        fv.atlas(toy, "relu", tmp_path / "facets", facets=3, **options)


def test_another_networks_index_is_refused(toy, index, tmp_path):
    other = dataclasses.replace(toy, digest="1" * 64)
    with pytest.raises(InputError, match="the network is toy with 111111111111"):
        fv.atlas(other, "relu", tmp_path / "none", index=index, **OPTIONS)
    with pytest.raises(fv.UnknownLayer, match="logits"):
        fv.atlas(toy, "logits", tmp_path / "none", index=index, **OPTIONS)


# ---- a sheet -------------------------------------------------------------------------------


def test_a_sheet_in_one_line(toy, made, tmp_path):
    store = tmp_path / "sheet.atlas"
    part = fv.sheet(toy, "relu:0-1", store, **OPTIONS)
    assert len(part) == 2
    whole = fv.sheet(toy, "relu:*", store, **OPTIONS)
    assert [label.split()[0] for label in whole.labels] == [f"relu:{n}" for n in range(6)]
    path = whole.save(tmp_path / "sheet.png")
    again = fv.replay(path, model=toy, progress=False)
    np.testing.assert_array_equal(np.round(again.images * 255), whole.images)
