"""An index against brute force, and what becomes of it when things go wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import threading

import jax
import numpy as np
import pytest
from networks import TOY_SIZE, toy
from PIL import Image

import featvis as fv
from featvis.cli.app import main
from featvis.files import write_file
from featvis.natural import Responses, store
from featvis.natural.index import measure

pytestmark = pytest.mark.usefixtures("quick_to_compile")

pytest.importorskip("zarr")

LAYERS = ("linear", "conv", "relu", "dead", "logits")
COUNT = 200


def write_images(folder, numbers):
    """Small pictures of few levels, some of them the same as others, so that responses tie."""
    for number in numbers:
        rng = np.random.default_rng(number % 150)
        # The linear unit at 50 is that of a flat picture, as at several others.
        levels = rng.integers(0, 256, (*TOY_SIZE, 3), dtype=np.uint8)
        if number % 40 == 0:
            levels[:] = 127
        Image.fromarray(levels).save(folder / f"{number:03}.png")


@pytest.fixture(scope="module")
def network():
    return toy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("natural")
    write_images(path, range(COUNT))
    return path


@pytest.fixture(scope="module")
def whole(network, folder, tmp_path_factory):
    return make(network, folder, tmp_path_factory.mktemp("index") / "store")


def make(network, folder, out, **options):
    return fv.index(network, folder, **{"layers": LAYERS, "out": out, "progress": False, **options})


@pytest.fixture(scope="module")
def activations(network, folder):
    images = np.stack([fv.read_image(path) for path in sorted(folder.iterdir())])
    return {name: np.asarray(a) for name, a in network(images).items()}


def flat(a):
    return a.reshape(len(a), -1, a.shape[-1])


@pytest.mark.parametrize("layer", LAYERS)
def test_responses_are_those_of_a_brute_force_pass(whole, activations, layer):
    a = flat(activations[layer])
    for unit in range(a.shape[-1]):
        found = whole.responses(fv.Logit(unit) if layer == "logits" else fv.Channel(layer, unit))
        highest = [max(row) for row in a[:, :, unit].tolist()]
        first = [row.index(max(row)) for row in a[:, :, unit].tolist()]
        # Of the same program in batches of another size there are other last bits.
        np.testing.assert_allclose(found.maximum, highest, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.mean, a[:, :, unit].mean(1), rtol=1e-4, atol=1e-5)
        assert np.mean(found.position == first) > 0.99
        order = sorted(range(COUNT), key=lambda i: (-found.maximum[i], i))
        assert found.highest(17).tolist() == order[:17]
        order = sorted(range(COUNT), key=lambda i: (found.mean[i], i))
        assert found.lowest(17, by="mean").tolist() == order[:17]


def test_measures_of_maps_of_any_size_are_numpys():
    sides = [(1, 1), (1, 3), (2, 4), (3, 3), (7, 9), (8, 8), (11, 13)]

    def apply(params, image):
        return {f"{h}x{w}": image[:, :h, :w] - 0.5 for h, w in sides}

    network = fv.from_function(apply, {}, input=fv.Input(size=(11, 13)))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 5, (6, 11, 13, 3)).astype(np.float32) / 4  # of few levels, that tie
    images[0], images[1] = 0.5, rng.random((11, 13, 3))
    places = rng.integers(0, 2**31, (6, len(sides))) % [h * w for h, w in sides]
    found = measure(network, tuple(network.layers()), images, places)
    for number, (h, w) in enumerate(sides):
        a = (images[:, :h, :w] - np.float32(0.5)).reshape(6, h * w, 3)
        own = {name: values[:, 3 * number : 3 * number + 3] for name, values in found.items()}
        np.testing.assert_array_equal(own["maximum"], a.max(1))
        np.testing.assert_array_equal(own["position"], a.argmax(1))
        np.testing.assert_array_equal(own["vector"], a[np.arange(6), places[:, number]])
        np.testing.assert_allclose(own["mean"], a.mean(1, np.float64), rtol=1e-6, atol=1e-7)


def test_equal_pictures_tie_and_come_in_the_order_of_the_files(whole):
    found = whole.responses("relu:2")
    assert (found.maximum[:50] == found.maximum[150:]).sum() == 47  # 150, 160 and 190 have no twin
    pairs = [(i, i + 150) for i in range(50) if found.maximum[i] == found.maximum[i + 150]]
    order = found.highest(COUNT).tolist()
    assert all(order.index(first) < order.index(second) for first, second in pairs)
    dead = whole.responses("dead:0")
    zeros = np.flatnonzero(dead.maximum == 0)
    assert len(zeros) > 20
    assert dead.lowest(len(zeros)).tolist() == zeros.tolist()


def test_statistics_are_those_of_all_images(whole, activations):
    a = flat(activations["dead"])
    for by, values in (("maximum", a.max(1)), ("mean", a.mean(1))):
        found = whole.statistics("dead", by, quantiles=(0.1, 0.9))
        np.testing.assert_allclose(found["mean"], values.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["sd"], values.std(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(found["zeros"], (values == 0).mean(0))
        np.testing.assert_allclose(
            found["quantile_0.9"], np.quantile(values, 0.9, 0), rtol=1e-4, atol=1e-6
        )
    extremes = whole.extremes("dead", 5)
    for unit in range(6):
        one = whole.responses(f"dead:{unit}")
        assert extremes["highest"][:, unit].tolist() == one.highest(5).tolist()
        assert extremes["lowest"][:, unit].tolist() == one.lowest(5).tolist()
        np.testing.assert_array_equal(extremes["position"][:, unit], one.position[one.highest(5)])


def test_a_position_is_drawn_evenly_and_by_the_image_alone(whole, activations):
    places = whole.positions("conv")
    vectors = np.concatenate(list(whole.vectors("conv")))
    expected = flat(activations["conv"])[np.arange(COUNT), places]
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
    # 150 different pictures; those that are the same have the same.
    twins = [i for i in range(50) if i not in (0, 10, 40)]
    assert all(places[i] == places[i + 150] for i in twins)
    assert len({*places.tolist()}) > 80
    np.testing.assert_allclose(whole.second_moment("conv"), vectors.T @ vectors / COUNT, rtol=1e-4)


@pytest.mark.thorough
def test_neither_the_batch_nor_the_order_changes_anything(whole, network, folder, tmp_path):
    some = tmp_path / "some"
    some.mkdir()
    for path in sorted(folder.iterdir())[::2]:
        shutil.copy2(path, some)
    first = make(network, some, tmp_path / "store", batch=7, layers=("conv", "relu"))
    assert len(first) == 100
    for path in sorted(folder.iterdir())[1::2]:
        shutil.copy2(path, some)
    both = make(network, some, tmp_path / "store", batch=7, layers=("conv", "relu"))
    assert len(both) == COUNT
    names = [path.name for path in both.files]
    order = np.argsort(names)
    for name in ("maximum", "mean"):
        values = getattr(both.responses("relu:1"), name)[order]
        expected = getattr(whole.responses("relu:1"), name)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(both.positions("conv")[order], whole.positions("conv"))


def killed(stage, patch):
    """Makes the third batch end in the middle, as a kill would; how many images are in then."""

    def end(*_):
        raise KeyboardInterrupt

    if stage == "settings":
        patch.setattr(store.Store, "set_settings", end)
        return None
    if stage == "first":
        patch.setattr(store.Store, "append", end)
        return 0
    calls: list[str] = []
    if stage == "rows":  # two of the five arrays have the batch's rows
        grow = store.Place.grow

        def count(self, name, *given):
            calls.append(name)
            if len(calls) == 13:
                end()
            grow(self, name, *given)

        patch.setattr(store.Place, "grow", count)
        return 64
    append = store.Store.append

    def half(self, entries, found, start):
        append(self, entries, found, start)
        calls.append("append")
        if len(calls) == 3:  # a line and a half of the batch are in the list
            path = self.path / "files.jsonl"
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join([*lines[:65], lines[65][:20]]))
            end()

    patch.setattr(store.Store, "append", half)
    return 65


@pytest.mark.parametrize("stage", ["settings", "first", "rows", "list"])
def test_a_kill_at_any_moment_loses_the_batch_under_way_alone(
    whole, network, folder, tmp_path, monkeypatch, stage
):
    out = tmp_path / "store"
    with monkeypatch.context() as patch:
        kept = killed(stage, patch)
        with pytest.raises(KeyboardInterrupt):
            make(network, folder, out)
    (out / ".featvis-0123.part").touch()  # what was being written
    if kept is not None:
        assert len(fv.Index(out)) == kept
    again = make(network, folder, out)
    assert len(again) == COUNT
    order = np.argsort([path.name for path in again.files])
    for unit in ("conv:1", "dead:0"):
        found, expected = again.responses(unit), whole.responses(unit)
        np.testing.assert_allclose(found.maximum[order], expected.maximum, rtol=1e-5, atol=1e-6)


def test_a_broken_file_is_left_out_and_listed_until_it_is_mended(network, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    write_images(folder, range(1, 6))
    (folder / "bad.png").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("not a picture")
    with pytest.warns(UserWarning, match=r"left out: .*bad\.png"):
        made = make(network, folder, tmp_path / "store", layers="conv")
    assert len(made) == 5
    assert list(made.left_out) == ["bad.png"]
    assert "not a picture that can be read" in made.left_out["bad.png"]
    assert len(make(network, folder, tmp_path / "store", layers="conv")) == 5
    shutil.copy(folder / "001.png", folder / "bad.png")
    os.utime(folder / "002.png")  # touched, and the same
    made = make(network, folder, tmp_path / "store", layers="conv")
    assert len(made) == 6
    assert not made.left_out


def test_an_image_that_gives_no_numbers_is_left_out(folder, tmp_path):
    def apply(params, image):
        spread = image.max((1, 2)) - image.min((1, 2))
        return {"inverse": jax.numpy.where(spread > 0, spread, jax.numpy.nan)}

    network = fv.from_function(apply, {}, input=fv.Input(size=TOY_SIZE))
    some = tmp_path / "some"
    some.mkdir()
    for name in ("000.png", "001.png"):
        shutil.copy(folder / name, some)
    with pytest.warns(UserWarning, match="not finite"):
        made = make(network, some, tmp_path / "store", layers="inverse")
    assert [path.name for path in made.files] == ["001.png"]


def test_what_does_not_fit_is_refused_with_what_differs(network, folder, tmp_path):
    some, out = tmp_path / "some", tmp_path / "store"
    some.mkdir()
    write_images(some, range(1, 5))
    make(network, some, out, layers="conv")
    with pytest.raises(fv.InputError, match="layers conv, not conv relu"):
        make(network, some, out, layers=("conv", "relu"))
    with pytest.raises(fv.InputError, match="seed 0, not 5"):
        make(network, some, out, layers="conv", seed=5)
    other = fv.from_function(network.apply, network.params, input=network.input, name="other")
    with pytest.raises(fv.InputError, match=r"of toy, was made with .*weights 000000000000, not"):
        make(other, some, out, layers="conv")
    with pytest.raises(fv.InputError, match=r"the weights 000000000000; the network is other"):
        fv.Index(out).check_model(other)
    (some / "001.png").unlink()
    write_images(some, [7])
    (some / "007.png").replace(some / "002.png")
    with pytest.raises(fv.InputError, match=r"1 gone \(001.png\) and 1 changed \(002.png\)"):
        make(network, some, out, layers="conv")
    with pytest.raises(fv.InputError, match=r"is gone|has changed"):
        fv.top(out, "conv:1")
    with pytest.raises(fv.InputError, match="is no index, and not empty"):
        make(network, folder, some)
    with pytest.raises(fv.InputError, match="is no index: `featvis index"):
        fv.top(tmp_path, "conv:1")
    with pytest.raises(fv.UnknownLayer, match="nearest: conv"):
        make(network, folder, tmp_path / "new", layers="convv")
    with pytest.raises(fv.InputError, match="no picture in"):
        make(network, tmp_path / "store", tmp_path / "new")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.png").write_bytes(b"nothing")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(fv.InputError, match=r"no picture .* can be read; the first: .*a\.png"),
    ):
        make(network, bad, tmp_path / "new", layers="conv")


def test_units_that_an_index_does_not_have(whole):
    with pytest.raises(fv.UnknownLayer, match="unknown layer 'block8'"):
        whole.responses("block8:3")
    with pytest.raises(fv.ObjectiveError, match="conv has units 0 to 5"):
        whole.responses("conv:6")
    for several in ("conv:[1, 2]", "conv:1@2,3", "conv:1 - tv"):
        with pytest.raises(fv.InputError, match="one channel or class at a time"):
            whole.responses(several)
    with pytest.raises(fv.InputError, match="ordered by maximum or mean; got 'max'"):
        fv.top(whole, "conv:1", by="max")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda index: fv.top(index, "conv:1", 0), "count is an integer of at least 1, not 0"),
        (lambda index: fv.top(3, "conv:1"), "is a path, not 3"),
        (lambda index: fv.top("", "conv:1"), "is a path, not ''"),
        (lambda index: index.responses("conv:1").highest(-1), "count is an integer of at least 1"),
        (lambda index: index.responses("conv:1").lowest(2.5), "count is an integer of at least 1"),
        (lambda index: index.responses("conv:1").quantiles([2]), "number from 0 to 1, not 2"),
        (lambda index: index.responses("conv:1").percentile("a"), "array of real numbers; got 'a'"),
        (lambda index: index.statistics("conv", quantiles=(np.nan,)), "number from 0 to 1, not n"),
        (lambda index: index.statistics("conv", quantiles=0.5), "several numbers from 0 to 1, not"),
        (lambda index: index.statistics(3), "unknown layer 3"),
        (lambda index: index.extremes("conv", 0), "count is an integer of at least 1, not 0"),
        (lambda index: index.nearest("conv", -1), "count is an integer of at least 1, not -1"),
        (lambda index: index.image(-1), "place is an integer of at least 0, not -1"),
        (lambda index: index.image(COUNT), f"an integer from 0 to {COUNT - 1}, not {COUNT}"),
        (lambda index: index.positions("cnv"), "unknown layer 'cnv'; nearest: conv"),
    ],
)
def test_what_an_index_is_not_asked(whole, asked, message):
    with pytest.raises((fv.InputError, fv.UnknownLayer), match=message):
        asked(whole)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"folder": 3}, "a folder of pictures is a path; got 3"),
        ({"folder": None}, "a folder of pictures is a path; got None"),
        ({"out": None}, "index: out is a path, not None"),
        ({"out": ""}, "index: out is a path, not ''"),
        ({"layers": 3}, r"layers are names, as \['linear'\]; got 3"),
        ({"layers": [3]}, "unknown layer 3"),
        ({"layers": []}, "at least one layer; got none of linear, conv"),
        ({"size": 0}, r"index: size is \(height, width\), two positive integers, not 0"),
        ({"batch": 0}, "batch is an integer of at least 1, not 0"),
        ({"seed": -1}, "seed is an integer of at least 0, not -1"),
    ],
)
def test_what_no_index_is_made_with(network, folder, tmp_path, given, message):
    with pytest.raises((fv.InputError, fv.UnknownLayer), match=message):
        make(network, **{"folder": folder, "out": tmp_path / "new", **given})
    assert not (tmp_path / "new").exists()


def test_a_percentile_of_no_number_is_none():
    responses = Responses(*np.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(responses.percentile([np.nan, 1.0, 9.0]), [np.nan, 37.5, 100])


def test_a_damaged_index_says_so(whole, tmp_path):
    out = tmp_path / "store"
    shutil.copytree(whole.store.path, out)
    with open(out / "files.jsonl", "a") as file:
        file.write('{"name": 3\n')
    with pytest.raises(fv.InputError, match="is damaged"):
        fv.Index(out)
    record = json.loads((out / "zarr.json").read_text())
    record["attributes"]["featvis_index"]["format"] = 99
    write_file(out / "zarr.json", json.dumps(record).encode(), force=True)
    with pytest.raises(fv.InputError, match="of format 99; expected 1"):
        fv.Index(out)


def lines(out):
    return [json.loads(line) for line in (out / "files.jsonl").read_text().splitlines()]


def relisted(out, **changed):
    whole = lines(out)
    whole[0] |= changed
    (out / "files.jsonl").write_text("".join(json.dumps(line) + "\n" for line in whole))


def reset(out, **changed):
    record = json.loads((out / "zarr.json").read_text())
    settings = record["attributes"]["featvis_index"]
    settings |= changed
    for name in [name for name, value in changed.items() if value is None]:
        del settings[name]
    (out / "zarr.json").write_text(json.dumps(record))


def chunks(out, array, change):
    for path in (out / array / "c").rglob("*"):
        if path.is_file():
            change(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "zarr.json").write_text(""), "is no index: `featvis index"),
        (lambda out: reset(out, batch=0), "not as it was written"),
        (lambda out: reset(out, layers=3), "not as it was written"),
        (lambda out: reset(out, layers={"conv": {}}), "not as it was written"),
        (lambda out: reset(out, folder=None), "not as it was written"),
        (lambda out: (out / "files.jsonl").write_text("3\n"), "is damaged"),
        (lambda out: (out / "files.jsonl").write_bytes(b"\xff\xfe\n"), "is damaged"),
        (lambda out: relisted(out, row="7"), r"files\.jsonl has a line that is no file's"),
        (lambda out: relisted(out, row=-5), r"files\.jsonl has a line that is no file's"),
        (lambda out: relisted(out, row=None), r"files\.jsonl has a line that is no file's"),
        (lambda out: relisted(out, row=10**6), "its files have rows up to 1000000"),
        (lambda out: (out / "files.jsonl").unlink(), "has no image yet"),
        (lambda out: shutil.rmtree(out / "maximum"), "its array maximum is missing"),
        (lambda out: (out / "maximum" / "zarr.json").write_text("{"), "its array maximum is"),
        (lambda out: shutil.rmtree(out / "maximum" / "c"), "maximum/c/0/0 is missing"),
        (lambda out: chunks(out, "maximum", lambda path: path.write_bytes(b"no")), "is damaged"),
        (
            lambda out: chunks(out, "maximum", lambda path: os.truncate(path, 40)),
            "is damaged: rows 0 to",
        ),
    ],
)
def test_what_is_damaged_of_an_index_is_said(whole, tmp_path, damage, message):
    out = tmp_path / "store"
    shutil.copytree(whole.store.path, out)
    damage(out)
    with pytest.raises(fv.InputError, match=message):
        fv.top(out, "conv:1")


def test_two_do_not_write_at_once(whole, network, folder):
    held = threading.Event(), threading.Event()

    def hold():
        with whole.store.locked():
            held[0].set()
            held[1].wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        held[0].wait(60)
        with pytest.raises(fv.InputError, match="somebody else is writing"):
            make(network, folder, whole.store.path)
    finally:
        held[1].set()
        thread.join()


def test_zarr_reads_the_store_by_itself(whole, activations):
    import zarr

    maximum = zarr.open_array(whole.store.path / "maximum", mode="r")
    rows = [entry.row for entry in whole.store.images]
    start = activations["linear"].shape[-1]
    assert maximum.metadata.zarr_format == 3
    np.testing.assert_allclose(
        maximum[:][rows, start : start + 6], flat(activations["conv"]).max(1), rtol=1e-4
    )


def test_an_index_without_zarr_says_what_to_install(network, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(fv.InputError, match=r"pip install 'featvis\[index\]'"):
        make(network, folder, tmp_path / "store")


def test_percentiles_count_ties_by_half():
    found = Responses(*(np.array(values) for values in ([1.0, 2, 2, 4], [0.0] * 4, [0] * 4)))
    assert found.percentile([0, 2, 3, 9]).tolist() == [0, 50, 75, 100]
    assert found.quantiles([0.5, 1]).tolist() == [2, 4]


def test_pages_and_names_of_an_index(whole):
    assert "200 images at 12x16" in repr(whole)
    page = whole._repr_html_()
    assert "<td><code>conv</code></td><td>6</td><td>192</td><td>3x3</td>" in page


def test_commands(network, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    some = tmp_path / "some"
    some.mkdir()
    write_images(some, range(1, 5))
    place = ("--model", "networks:toy")
    main(["index", str(some), *place, "-o", "store", "--layers", "conv, logits", "--quiet"])
    assert "4 images, 11 units of 2 layers  store" in capsys.readouterr().out
    main(["index", str(some), *place, "-o", "store", "--layers", "conv,logits", "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["images"] == 4
    main(["top", "store", "conv:2", "--count", "3", "-o", "sheet.png", "--json"])
    record = json.loads(capsys.readouterr().out)
    expected = fv.top("store", "conv:2", 3)
    assert [one["score"] for one in record["images"]] == expected.scores.tolist()
    with Image.open("sheet.png") as sheet:
        assert sheet.size == expected.sheet().size
    main(["top", "store", "logits:2", "--lowest", "--by", "mean"])
    assert "sheet  top-logits-2.png" in capsys.readouterr().out
    for wrong, said in (
        (["index", str(some), *place], "index takes --out too"),
        (["index", *place, "-o", "store"], "index takes FOLDER beside --model"),
        (["top", "store", "conv:77"], "conv has units 0 to 5"),
    ):
        assert main(wrong) == 2
        assert said in capsys.readouterr().err


@pytest.mark.thorough
def test_a_percentile_among_an_index_is_that_among_the_images(whole, network, folder):
    made = fv.synthesize(
        network, "2*conv:[0, 4] - tv + logits:2", steps=3, transform="none", progress=False
    )
    expected = fv.compare_with_natural(made, folder).evidence
    for given in (whole, str(whole.store.path)):
        found = fv.compare_with_natural(made, given).evidence
        for name in ("unit_score", "percentile", "natural_max", "natural_mean", "natural_images"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, err_msg=name)
    other = fv.synthesize(network, "conv:2@3,4", steps=3, transform="none", progress=False)
    with pytest.raises(fv.InputError, match="nothing of conv:2@3,4: compare with the folder"):
        fv.compare_with_natural(other, whole)


@pytest.mark.thorough
def test_the_weight_of_a_maximisation_is_that_of_natural_images(whole, network):
    at = fv.methods.setting_of(network, "logits", TOY_SIZE, None)
    most = whole.extremes("logits", 1)["highest"][0]
    largest = [whole.responses(f"logits:{i}").maximum[most[i]] for i in range(5)]
    excited = [i for i in range(5) if largest[i] > 0][:2]
    at = dataclasses.replace(at, units=tuple(excited))
    recipe = fv.methods.exp_maximization(at, natural=whole)
    largest = [largest[i] for i in excited]
    np.testing.assert_allclose(recipe.weight, 1e4 / (12 * 16) / np.array(largest), rtol=1e-6)
    result = fv.class_model(
        network, excited, preset="exp_maximization", natural=whole, steps=4, progress=False
    )
    assert np.isfinite(result.evidence["logit"]).all()
    with pytest.raises(fv.InputError, match="no image of the index excites logits:1"):
        fv.class_model(network, 1, preset="exp_maximization", natural=whole)
    with pytest.raises(fv.InputError, match="takes natural=, an index"):
        fv.class_model(network, 1, preset="exp_maximization")


def said_by(arguments, capsys):
    code = main(arguments)
    out, errors = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], errors


@pytest.mark.thorough
def test_a_maximisation_of_units_is_a_preset_of_render(
    whole, network, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("featvis.cli.output.enable_cache", lambda: None)
    place = ["--model", "networks:toy", "--steps", "4", "--json", "--quiet"]
    given = [*place, "--preset", "exp_maximization", "--natural", str(whole.store.path)]
    units = ["relu:1", "linear:0", "relu:3@2,3"]
    code, lines, _ = said_by(["render", *units, *given, "-o", "all/"], capsys)
    assert code == 0
    found = {line["objective"]: line for line in lines}
    for unit in units:
        line = found[unit]
        with Image.open(line["image"]) as picture:
            record = json.loads(picture.text["featvis"])
        objective = record.get("objective") or record["runs"][-1]["objective"]
        layer = unit.partition(":")[0]
        largest = whole.responses(unit.partition("@")[0]).maximum.max()
        weight = 1e4 / np.prod(whole.field(layer).sides) / largest
        number, _, rest = objective.partition("*")
        assert float(number) == pytest.approx(weight, rel=1e-5)
        assert rest.startswith(unit)
        assert "alpha_norm" in rest
        # Each is what it is alone.
        _, (alone, *_), _ = said_by(["render", unit, *given, "-o", "alone.png", "--force"], capsys)
        assert alone["score"] == pytest.approx(line["score"], rel=1e-4)


def test_a_place_that_is_taken_is_said_before_anything_is_computed(
    network, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys.modules["featvis.natural.index"], "receptive_fields", pytest.fail)
    (tmp_path / "mine.txt").write_text("of the user")
    with pytest.raises(fv.InputError, match="is no index, and not empty"):
        make(network, folder, tmp_path)
