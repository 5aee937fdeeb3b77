import argparse
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import jax.numpy as jnp
import networks
import numpy as np
import pytest
from PIL import Image

import featvis as fv
from featvis.pages import Report
from featvis.pictures import grid, to_picture
from featvis.results.format import FORMAT
from featvis.results.reading import read_manifest

NASTY = "a < b & \"c\" 'd' </p><script>alert(1)</script>"
IMAGES = np.linspace(0, 1, 2 * 5 * 4 * 3, dtype=np.float32).reshape(2, 5, 4, 3)


class Page(HTMLParser):
    """Elements as (tag, attributes, text directly in them), and whether all were closed."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, path):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        element = SimpleNamespace(tag=tag, attrs=dict(attrs), text="")
        self.elements.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        if self.open:
            self.open[-1].text += data

    def all(self, tag):
        return [element for element in self.elements if element.tag == tag]

    def texts(self, tag):
        return [element.text for element in self.all(tag)]


class Nasty(fv.Objective):
    """An objective whose text is another's."""

    def __call__(self, acts, image):
        return image.mean((1, 2, 3))

    def __str__(self):
        return NASTY


def result_of(images, **changes):
    count = len(images)
    fields = {
        "images": images,
        "scores": np.zeros((3, count)),
        "clean_scores": np.arange(count, dtype=np.float32),
        "transformed_scores": np.ones(count, np.float32),
        "params": images,
        "sensitivity": np.ones(images.shape[:3]),
        "snapshots": {},
        "runs": networks.done("block4:[1, 2] - 0.1*tv", count),
        "steps": np.full(count, 3),
        "stopped": ("steps",) * count,
        "failures": (None,) * count,
        "seconds": 1.0,
    }
    fields.setdefault("silent", (None,) * len(fields["images"]))
    return fv.Result(**{**fields, **changes})


def test_the_page_says_what_was_added_in_order(tmp_path):
    report = Report(tmp_path / "new" / "folder", "The title", "The summary.")
    report.heading("First")
    report.text("One paragraph.")
    report.heading("Second")
    page = report.write(seed=3)
    assert page == tmp_path / "new" / "folder" / "index.html"
    found = Page(page)
    assert found.all("html")[0].attrs["lang"] == "en"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [
        meta.attrs for meta in found.all("meta")
    ]
    assert found.texts("title") == found.texts("h1") == ["The title"]
    assert found.texts("h2") == ["First", "Second", "How this was made"]
    assert found.texts("p")[:2] == ["The summary.", "One paragraph."]
    order = [element.text for element in found.elements if element.tag in ("h1", "h2", "p")]
    assert order.index("First") < order.index("One paragraph.") < order.index("Second")


def test_text_is_never_markup(tmp_path):
    report = Report(tmp_path, NASTY, NASTY)
    report.heading(NASTY)
    report.text(NASTY)
    report.table([NASTY, "x"], [[NASTY, NASTY]], NASTY)
    report.pictures("p", IMAGES, [NASTY, "b"], caption=NASTY)
    report.result("r", result_of(IMAGES, runs=networks.done(Nasty(), 2)), caption=NASTY)
    page = Page(report.write(**{NASTY: NASTY}, nested={NASTY: [NASTY]}))
    assert not page.all("script")
    for tag in ("title", "h1", "h2", "p", "th", "td", "figcaption", "code", "dt", "dd"):
        assert NASTY in page.texts(tag), tag
    assert page.all("img")[0].attrs["alt"] == f"2 pictures: {NASTY}, b"
    assert page.all("div")[0].attrs["aria-label"] == NASTY


def test_nothing_comes_from_outside_the_folder(tmp_path):
    report = Report(tmp_path, "t")
    report.pictures("p.1-é", IMAGES)
    report.result("r", result_of(IMAGES))
    text = report.write().read_text(encoding="utf-8")
    assert "http" not in text
    assert "url(" not in text
    assert "@import" not in text
    targets = re.findall(r'(?:href|src)="([^"]*)"', text)
    files = [unquote(target) for target in targets if not target.startswith("data:")]
    assert set(files) == {"p.1-é.png", "r.png", "r.json", "manifest.json"}
    assert all((tmp_path / file).is_file() for file in files)


# ---- tables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "shown", "stored"),
    [
        (3.14159265, "3.142", 3.14159265),
        (17.2, "17.20", 17.2),
        (0.000123456, "0.0001235", 0.000123456),
        (123456.7, "123457", 123456.7),
        (-1234.5678, "-1235", -1234.5678),
        (2.5e7, "2.500e+07", 2.5e7),
        (-0.0, "0.000", 0.0),
        (12345678, "12345678", 12345678),
        (np.int64(7), "7", 7),
        (np.float64(0.5), "0.5000", 0.5),
        (jnp.float32(0.25), "0.2500", 0.25),
        (np.array(2), "2", 2),
        (True, "True", True),
        (None, "", None),
        (math.nan, "not finite", None),
        (-math.inf, "not finite", None),
        (np.float32("inf"), "not finite", None),
        (Path("a") / "b", os.path.join("a", "b"), os.path.join("a", "b")),
    ],
)
def test_cells_are_shown_short_and_stored_in_full(tmp_path, cell, shown, stored):
    report = Report(tmp_path, "t")
    report.table(["name", "value"], [["row", cell]])
    assert Page(report.write()).texts("td") == [shown]
    table = json.loads((tmp_path / "manifest.json").read_text())["tables"][0]
    assert table == {"caption": "", "header": ["name", "value"], "rows": [["row", stored]]}


def test_tables_name_their_rows_and_columns(tmp_path):
    report = Report(tmp_path, "t")
    report.table(["layer", "score", "remark"], [["a", 1, "x"], ["b", 2.0, 3]], "All of them")
    report.table(["layer"], [])
    page = Page(report.write())
    heads = [(th.attrs["scope"], th.text) for th in page.all("th")]
    columns = [("col", "layer"), ("col", "score"), ("col", "remark")]
    assert heads == [*columns, ("row", "a"), ("row", "b"), ("col", "layer")]
    assert page.texts("figcaption") == ["All of them"]
    # Numbers to the right, but not in a column where some cells are text.
    kinds = [(td.text, td.attrs.get("class")) for td in page.all("td")]
    assert kinds == [("1", "number"), ("x", None), ("2.000", "number"), ("3", None)]
    boxes = [box.attrs for box in page.all("div")]
    assert [box["aria-label"] for box in boxes] == ["All of them", "table 2"]
    assert all(box["tabindex"] == "0" for box in boxes)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ([], [], "at least one column"),
        (["a", "b"], [[1, 2], [3]], "row 1 has 1 cells; the header has 2: a, b"),
        (["a", "b"], [[1, np.zeros(2)]], r"row 0, column 'b': a cell is one number or text, not"),
        (["a"], [[[1, 2]]], r"not \[1, 2\]"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, header, rows, message):
    with pytest.raises(fv.InputError, match=message):
        Report(tmp_path, "t").table(header, rows)


# ---- pictures ------------------------------------------------------------------------------


def test_pictures_are_a_grid(tmp_path):
    report = Report(tmp_path, "t")
    path = report.pictures("p", IMAGES, ["a", "b"], columns=1, caption="Two")
    assert path == tmp_path / "p.png"
    expected = grid([to_picture(image) for image in IMAGES], ["a", "b"], columns=1)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))
    image = Page(report.write()).all("img")[0].attrs
    assert image == {
        "src": "p.png", "alt": "2 pictures: a, b",
        "width": str(expected.width), "height": str(expected.height),
    }  # fmt: skip


def test_zoom_repeats_pixels(tmp_path):
    pixels = np.array([[[0.0], [1.0]], [[0.4], [0.6]]])
    with Image.open(Report(tmp_path, "t").pictures("p", [pixels], zoom=3)) as picture:
        levels = np.asarray(picture)[4:-4, 4:-4]
    expected = np.repeat(np.repeat(np.array([[0, 255], [102, 153]]), 3, 0), 3, 1)
    np.testing.assert_array_equal(levels, np.repeat(expected[..., None], 3, -1))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "p: there is no image"),
        (IMAGES[0], {}, r"p: images are \(h, w, c\), all of one shape; image 0 is \(4, 3\)"),
        ([IMAGES[0], IMAGES[0, :3]], {}, r"image 1 is \(3, 4, 3\) and image 0 \(5, 4, 3\)"),
        (IMAGES * 255, {}, r"p: the values of image 0 must be in \[0, 1\]; got .* 0 to 12"),
        (IMAGES - 0.1, {}, "image 0 must be in .* from -0.1 to 0.39"),
        (IMAGES * np.nan, {}, "image 0 must be in .* are not finite"),
        (IMAGES, {"labels": ["a"]}, "2 pictures have 1 labels"),
        (IMAGES, {"zoom": 0}, "zoom is an integer of at least 1, not 0"),
        (IMAGES, {"zoom": 1.5}, "zoom is an integer of at least 1, not 1.5"),
        (IMAGES, {"columns": 0}, "columns is an integer of at least 1, not 0"),
    ],
)
def test_what_are_no_pictures_is_refused(tmp_path, images, options, message):
    report = Report(tmp_path, "t")
    with pytest.raises(fv.InputError, match=message):
        report.pictures("p", images, **options)
    assert not list(tmp_path.iterdir())
    report.pictures("p", IMAGES)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", "/a", "a b", ".hidden", "-a", "a:b", "a\n", "a\\b", "a?"]
)
def test_names_are_plain_file_names(tmp_path, name):
    with pytest.raises(fv.InputError, match="is no plain file name") as caught:
        Report(tmp_path, "t").pictures(name, IMAGES)
    assert "\n" not in str(caught.value)


def test_a_name_is_taken_once(tmp_path):
    report = Report(tmp_path, "t")
    report.pictures("units", IMAGES)
    for add in (report.pictures, lambda name, images: report.result(name, result_of(images))):
        for name in ("units", "Units", "manifest", "index"):
            with pytest.raises(fv.InputError, match=f"the report already has '{name}'"):
                add(name, IMAGES)


def test_a_figure_is_described_by_its_words(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    report = Report(tmp_path, "t")
    figure = Figure(figsize=(3, 2))
    first, second = figure.subplots(1, 2)
    first.plot([1, 2])
    first.set(title="The ascent", xlabel="step", ylabel="score")
    second.set(xlabel="step")
    report.figure("ascent", figure, "It rises & rises")
    report.figure("blank", Figure(figsize=(1, 1)))
    page = Page(report.write())
    described = [(image.attrs["alt"], image.attrs["width"]) for image in page.all("img")]
    assert described == [("plot: The ascent, score, step", "360"), ("plot: blank", "120")]
    assert page.texts("figcaption") == ["It rises & rises"]


# ---- results -------------------------------------------------------------------------------


def test_a_result_keeps_its_manifest_in_both_files(tmp_path):
    report = Report(tmp_path, "t")
    result = result_of(IMAGES)
    path = report.result("r", result, ["a", "b"], columns=2, caption="Two channels")
    assert read_manifest(path) == result.manifest
    record = json.loads((tmp_path / "r.json").read_text())
    runs, layout = result.manifest["runs"], record.pop("layout")
    assert record == {"format": FORMAT, "runs": runs, "result": result.summary()}
    assert [len(layout["corners"]), layout["shape"]] == [2, list(IMAGES.shape[1:])]
    with Image.open(path) as picture:
        np.testing.assert_array_equal(
            np.asarray(picture), np.asarray(result.grid(["a", "b"], columns=2))
        )
    page = Page(report.write())
    assert page.texts("code") == [runs[0]["objective"]]
    assert page.all("img")[0].attrs["alt"] == "synthesized: a, b"
    assert page.texts("figcaption") == ["Two channels, "]


def test_one_image_alone_is_no_grid(tmp_path):
    report = Report(tmp_path, "t")
    with Image.open(report.result("r", result_of(IMAGES)[1])) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(to_picture(IMAGES[1])))


def test_figures_that_are_not_finite_are_null(tmp_path):
    report = Report(tmp_path, "t")
    report.result("r", result_of(IMAGES, clean_scores=np.array([np.nan, np.inf])))
    report.write(loss=np.array([1.0, np.nan]), worst=-math.inf)

    def refuse(constant):
        raise AssertionError(constant)

    record = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)
    assert record["result"]["clean_score"] == [None, None]
    manifest = json.loads((tmp_path / "manifest.json").read_text(), parse_constant=refuse)
    assert manifest["facts"] == {"loss": [1.0, None], "worst": None}


# ---- the folder ----------------------------------------------------------------------------


def test_the_manifest_has_command_facts_and_versions(tmp_path):
    report = Report(tmp_path, "The title")
    arguments = argparse.Namespace(out=Path("o"), quick=True, layers=("a", "b"))
    report.write(seed=np.int64(3), seconds=1.25, arguments=arguments, shape={"h": jnp.arange(2)})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["title"] == "The title"
    assert manifest["command"].startswith("python ")
    assert manifest["facts"] == {
        "seed": 3, "seconds": 1.25, "shape": {"h": [0, 1]},
        "arguments": {"out": "o", "quick": True, "layers": ["a", "b"]},
    }  # fmt: skip
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["tables"] == []
    page = Page(tmp_path / "index.html")
    facts = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert facts["command"] == manifest["command"]
    assert facts["seed"] == "3"
    assert facts["arguments"] == "out o, quick True, layers a, b"
    assert f"numpy {np.__version__}" in facts["versions"]


def test_a_report_is_written_over_and_other_files_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for text, images in [("first", IMAGES), ("second", 1 - IMAGES)]:
        report = Report(tmp_path, "t", text)
        path = report.pictures("p", images)
        report.result("r", result_of(images))
        report.write()
    expected = grid([to_picture(image) for image in 1 - IMAGES])
    with Image.open(path) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))
    assert Page(tmp_path / "index.html").texts("p")[0] == "second"
    assert (tmp_path / "notes.txt").read_text() == "mine"
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"notes.txt", "p.png", "r.png", "r.json", "manifest.json", "index.html"}


def test_the_same_report_is_the_same_bytes(tmp_path):
    pages = []
    for folder in ("a", "b"):
        report = Report(tmp_path / folder, "t")
        report.pictures("p", IMAGES)
        report.write(seed=0)
        pages.append({file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()})
    assert pages[0] == pages[1]


def test_where_no_folder_can_be_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(fv.OutputError, match=r"cannot make the folder .*file"):
        Report(tmp_path / "file", "t")
    with pytest.raises(fv.OutputError, match=r"cannot make the folder .*below"):
        Report(tmp_path / "file" / "below", "t")


def test_text_that_has_no_utf8_is_still_written(tmp_path):
    Report(tmp_path, "t", "bad \udcff name").write(path="\udcff")
    assert "bad ? name" in (tmp_path / "index.html").read_text(encoding="utf-8")
