"""A report in a real browser."""

from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest

import featvis as fv
from featvis.pages import Report

SIZES = {"phone": (360, 800), "desk": (1280, 900)}


@pytest.fixture(scope="module")
def index(tmp_path_factory, toy):
    images = np.random.default_rng(0).random((12, 40, 40, 3))
    report = Report(tmp_path_factory.mktemp("report") / "out", "What do <units> see? " + "x" * 80)
    report.heading("Scores & figures")
    report.table(
        ["layer", *(f"a column with a long name, {i}" for i in range(12)), "remark"],
        [[f"block{i}", *np.arange(12) * 1234.5, "text of <several> words"] for i in range(3)],
        "A table wider than any screen",
    )
    report.table(["name", "value"], [["a & b", 3.14159265], ["c", float("nan")]])
    report.pictures("wide", images, [f"unit {i}" for i in range(12)], columns=12, zoom=4)
    objective, start = fv.Channel("conv", np.arange(2)), fv.Fourier((16, 16))
    result = fv.synthesize(toy, objective, start, steps=1, progress=False)
    report.result("result.é-1", result, ["one", "two"], caption="A result")
    return report.write(seed=0, arguments={"path": "a/long/path" * 30})


@pytest.mark.thorough
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_page_fits_the_screen(browser, index, show, size):
    show(index, size)
    room, used = browser.execute_script(
        "const page = document.documentElement; return [page.clientWidth, page.scrollWidth]"
    )
    assert used <= room
    boxes = browser.execute_script(
        "return Array.from(document.querySelectorAll('.scroll'), "
        "box => [box.scrollWidth > box.clientWidth, getComputedStyle(box).overflowX])"
    )
    assert boxes == [[True, "auto"], [False, "auto"]]


def test_nothing_fails_to_load(browser, index, show):
    browser.get_log("browser")
    show(index, SIZES["desk"])
    assert browser.get_log("browser") == []
    images = browser.execute_script(
        "return Array.from(document.images, i => [i.naturalWidth, i.naturalHeight, "
        "Number(i.getAttribute('width')), Number(i.getAttribute('height')), i.alt])"
    )
    assert len(images) == 2
    for *natural, width, height, alternative in images:
        assert natural == [width, height]
        assert min(natural) > 0
        assert alternative
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert all(name.startswith(("file:", "data:")) for name in loaded)


def test_every_link_leads_to_a_file_of_the_report(browser, index, show):
    show(index, SIZES["desk"])
    links = browser.execute_script("return Array.from(document.links, a => a.href)")
    assert {urlparse(link).scheme for link in links} == {"file"}
    targets = {Path(unquote(urlparse(link).path)) for link in links}
    assert targets == set(index.parent.iterdir()) - {index}


def test_the_tables_read_as_they_should(browser, index, show):
    show(index, SIZES["phone"])
    text = browser.execute_script("return document.querySelectorAll('table')[1].innerText")
    assert text.split("\n") == ["name\tvalue", "a & b\t3.142", "c\tnot finite"]
    first = browser.execute_script("return document.querySelector('tbody tr').innerText")
    assert first.split("\t")[:4] == ["block0", "0.000", "1234", "2469"]
    assert first.endswith("text of <several> words")
    titles = browser.execute_script(
        "return [document.title, document.querySelector('h1').innerText]"
    )
    assert titles == ["What do <units> see? " + "x" * 80] * 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(browser, index, show, scheme):
    show(index, SIZES["desk"], scheme)
    paper = colour(browser, "body", "backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    for selector in ("p", "td", "figcaption", "a", "dt"):
        lighter, darker = sorted(
            (luminance(paper), luminance(colour(browser, selector, "color"))), reverse=True
        )
        # WCAG 2.2, success criterion 1.4.3.
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector


def colour(browser, selector, name):
    text = browser.execute_script(
        f"return getComputedStyle(document.querySelector('{selector}')).{name}"
    )
    return np.array([int(level) for level in text[4:-1].split(",")]) / 255


def luminance(colour):
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]
