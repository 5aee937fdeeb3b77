"""The files of a site: the same each time, in the place of an earlier one, and nothing else's."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from atlases import made_up

import featvis as fv
from featvis.atlas import Atlas
from featvis.cli.app import main
from featvis.pages import atlas_site
from featvis.pages.sheets import walk

pytest.importorskip("zarr")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    place = tmp_path_factory.mktemp("atlas")
    layers = {"a/b": 5, "a-b": 3, "<logits>": 2}
    return made_up(
        place / "store", layers, size=(8, 10), seeds=2, photographs=place / "photographs"
    )


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_atlas_gives_the_same_files_and_replaces_an_earlier_site(store, tmp_path):
    first = atlas_site(store.place.path, tmp_path / "site", progress=False)
    assert first == tmp_path / "site" / "index.html"
    before = digests(first.parent)
    (first.parent / "a-b" / "old.html").write_text("of an earlier site")
    assert digests(atlas_site(store.place.path, tmp_path / "site", progress=False).parent) == before
    assert {one.name for one in tmp_path.iterdir()} == {"site"}
    # Layers whose names become one folder's have one each.
    assert {"a-b/4.html", "a-b-1/2.html", "logits/1.html"} <= set(before)
    text = (first.parent / "index.html").read_text(encoding="utf-8")
    assert "&lt;logits&gt;" in text
    assert "<logits>" not in text


def test_the_command_line_exports_an_atlas(store, tmp_path, capsys):
    asked = ["atlas", "export", str(store.place.path)]
    assert main([*asked, str(tmp_path / "site"), "--quiet"]) == 0
    assert capsys.readouterr().out == f"site  {tmp_path / 'site' / 'index.html'}\n"
    assert (tmp_path / "site" / "a-b" / "4.html").is_file()
    for words, said in [
        (asked, "atlas export takes STORE SITE, as in: featvis atlas export block8.atlas site/"),
        (["atlas", "stauts", "a"], "no such network: did you mean `featvis atlas status`?"),
        (["atlas", "Verify", "a"], "no such network: did you mean `featvis atlas verify`?"),
        (["atlas", "status"], "atlas status takes STORE, as in: featvis atlas status"),
        ([*asked, "site", "--out", "x"], "takes --invariances, --json, --quiet; got --out"),
        (["atlas", "status", asked[2], "--units", "3"], "takes --json, --quiet; got --units"),
        (["atlas", "toy", "relu", "--out", "x", "--invariances", "y"], "is of atlas export"),
    ]:
        assert main(words) == 2
        assert said in capsys.readouterr().err


def table(folder, **settings):
    folder.mkdir()
    (folder / "settings.json").write_text(
        json.dumps({"digest": "0" * 64, "layer": "a-b"} | settings)
    )
    rows = ["unit,alive,best,rotation", "0,True,2.5,0.75", "2,False,,"]
    (folder / "units.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_a_sheet_is_sorted_by_what_its_units_ignore_too(store, tmp_path):
    found = table(tmp_path / "table")
    made = atlas_site(
        store.place.path, tmp_path / "site", invariances=[found], progress=False
    ).parent
    data = (made / "a-b-1" / "data.js").read_text(encoding="utf-8")
    figures = json.loads(data.removeprefix("window.featvisSheet = ").removesuffix(";\n"))["figures"]
    assert figures["rotation"] == {"title": "invariance to rotation", "of": [0.75, None, None]}
    assert "scale" not in figures
    assert "invariance to rotation" in (made / "a-b-1" / "0.html").read_text(encoding="utf-8")
    assert "invariance to rotation" not in (made / "a-b-1" / "2.html").read_text(encoding="utf-8")
    for number, (wrong, said) in enumerate(
        [
            ({"digest": "f" * 64}, "is of None with the weights ffff"),
            ({"layer": "c"}, "is of c; the"),
        ]
    ):
        with pytest.raises(fv.InputError, match=said):
            atlas_site(
                store.place.path, tmp_path / "other", progress=False,
                invariances=[table(tmp_path / f"table{number}", **wrong)],
            )  # fmt: skip
    with pytest.raises(fv.InputError, match="cannot be read"):
        atlas_site(store.place.path, tmp_path / "other", invariances=[tmp_path], progress=False)


def test_what_cannot_be_written_over_stays(store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(fv.InputError, match="is no site, and not empty"):
        atlas_site(store.place.path, tmp_path / "mine", progress=False)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"
    made = atlas_site(store.place.path, tmp_path / "site", progress=False).parent
    (made / ".git").mkdir()
    (made / "CNAME").write_text("mine")
    before = digests(made)
    assert digests(atlas_site(store.place.path, made, progress=False).parent) == before
    assert (made / ".git").is_dir()
    shutil.rmtree(made / "logits")
    record = json.loads((made / "site.json").read_text())
    record["names"].remove("a-b")
    (made / "site.json").write_text(json.dumps(record))
    before = digests(made)
    with pytest.raises(fv.InputError, match="has a-b, which is not of its site"):
        atlas_site(store.place.path, made, progress=False)
    assert digests(made) == before
    shutil.rmtree(made)
    with pytest.raises(fv.InputError, match="is no atlas"):
        atlas_site(tmp_path / "mine", tmp_path / "site", progress=False)
    assert not (tmp_path / "site").exists()


def test_photographs_that_are_gone_are_said_and_the_rest_is_written(store, tmp_path):
    atlas = Atlas.open(store.place.path)
    place = next(iter(atlas.unit("a-b", 0).natural.files.values()))
    moved = tmp_path / "elsewhere.png"
    shutil.move(place, moved)
    try:
        with pytest.warns(UserWarning, match="photographs left out: there is no file"):
            made = atlas_site(atlas, tmp_path / "site", progress=False)
    finally:
        shutil.move(moved, place)
    assert "photograph" in (made.parent / "a-b" / "0.html").read_text(encoding="utf-8")


def test_a_walk_goes_to_the_nearest_that_has_not_been():
    assert walk([[2, 1], [0], [3], [2, 0]]) == [0, 2, 3, 1]
    assert walk([[], [], [1]]) == [0, 1, 2]
    assert walk([]) == []


def test_damaged_records_are_left_out_and_said(tmp_path):
    made_up(tmp_path / "store", {"a": 9}, size=(8, 8), seeds=1)
    (tmp_path / "store" / "batches" / "0000000008.json").write_text("[]")
    with pytest.warns(UserWarning, match="pictures are left out: 1; `featvis atlas verify"):
        site = atlas_site(tmp_path / "store", tmp_path / "site", progress=False).parent
    assert (site / "a" / "7.html").is_file()


def test_the_command_of_a_page_names_a_network_of_ones_own(tmp_path):
    store = made_up(tmp_path / "store", {"a b": 1}, size=(8, 8), seeds=1)
    model = {**store.settings["model"], "name": "mine:made_up"}
    store.set_settings({**store.settings, "model": model})
    site = atlas_site(tmp_path / "store", tmp_path / "site", progress=False).parent
    command = "featvis replay mine-made_up_a-b-0.png --model mine:made_up</code>"
    assert command in (site / "a-b" / "0.html").read_text(encoding="utf-8")
    assert (site / "a-b" / "mine-made_up_a-b-0.png").is_file()
