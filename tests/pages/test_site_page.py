"""The site of an atlas in a real browser."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from atlases import IMAGES, color, made_up
from PIL import Image

from featvis.atlas import Atlas
from featvis.pages import atlas_site
from featvis.pages.sheets import Sheet, Thumbs, jpeg, site_folder, write
from featvis.results.reading import read_manifest

pytest.importorskip("zarr")

UNITS, CLASSES = 300, 12
SIZES = {"phone": (360, 800), "desk": (1280, 900)}
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    place = tmp_path_factory.mktemp("atlas")
    layers = {"block1": UNITS, "logits": CLASSES}
    photographs = place / "photographs"
    made_up(place / "store", layers, size=(12, 12), batch=64, seeds=1, photographs=photographs)
    return place / "store"


@pytest.fixture(scope="module")
def site(store):
    return atlas_site(store, store.parent / "site", progress=False).parent


@pytest.fixture(scope="module")
def page(browser, show, site):
    """Opens the sheet of a layer; gives a function that runs a script in it."""

    def opened(layer="block1", hash="", size="desk", scheme="light"):
        browser.get("about:blank")
        show((site / layer / "index.html").as_uri() + hash, SIZES[size], scheme)
        return lambda script, *given: browser.execute_script(script, *given)

    return opened


def wait(ask, wanted=True):
    """What a page says once it is what is wanted, or after 5 seconds."""
    end = time.monotonic() + 5
    while (found := ask()) != wanted and time.monotonic() < end:
        time.sleep(0.02)
    return found


SHOWN = (
    "return Array.from(document.querySelectorAll('#sheet a'), a => a)"
    ".sort((a, b) => a.dataset.place - b.dataset.place)"
    ".map(a => Number(a.getAttribute('href').replace('.html', '')))"
)
TOLD = "return document.getElementById('told').textContent"


#: How far things moved by themselves since the page began, once its observer has been told.
SHIFTS = """
let sum = 0;
const seen = new PerformanceObserver(list => list.getEntries().forEach(one => sum += one.value));
seen.observe({type: "layout-shift", buffered: true});
requestAnimationFrame(() => setTimeout(() => arguments[0](sum), 50));
"""


def type_in(browser, name, text):
    field = browser.find_element("id", name)
    field.clear()
    field.send_keys(text)


@pytest.mark.thorough
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_kind_of_page_loads_and_fits(browser, show, site, size, scheme):
    browser.get_log("browser")
    for name in ("index.html", "block1/index.html", "block1/3.html", "logits/all.html"):
        show(site / name, SIZES[size], scheme)
        room, used = browser.execute_script(
            "const page = document.documentElement; return [page.clientWidth, page.scrollWidth]"
        )
        assert used <= room, name
        wait(lambda: browser.execute_script("return Array.from(document.images).every(i => "
                                            "i.complete)"))  # fmt: skip
        lost = browser.execute_script(
            "return Array.from(document.images).filter(i => i.complete && !i.naturalWidth && "
            "i.loading !== 'lazy').map(i => i.src)"
        )
        assert lost == [], name
        assert browser.execute_async_script(SHIFTS) == 0, name
        loaded = browser.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert all(one.startswith(("file:", "data:")) for one in loaded)
    assert browser.get_log("browser") == []


def test_all_links_lead_somewhere(browser, show, site):
    for name in ("index.html", "block1/3.html", "logits/11.html"):
        show(site / name, SIZES["desk"])
        links = browser.execute_script("return Array.from(document.links, a => a.href)")
        assert links
        for link in links:
            assert Path(unquote(urlparse(link).path)).is_file(), link


def test_search_finds_units_classes_and_photographs(browser, page, store):
    run = page("logits")
    assert run(TOLD) == f"{CLASSES} units"
    type_in(browser, "find", "CLASS 7")
    assert wait(lambda: run(SHOWN), [7]) == [7]
    assert run(TOLD) == f"1 of {CLASSES} units"
    type_in(browser, "find", "nothing like it")
    assert wait(lambda: run(SHOWN), []) == []
    assert run("return document.querySelector('.none').checkVisibility()")
    run = page("block1")
    type_in(browser, "find", "2-4, 299")
    assert wait(lambda: run(SHOWN), [2, 3, 4, 299]) == [2, 3, 4, 299]
    assert run("return document.querySelector('.none').hidden")
    type_in(browser, "find", "photograph05")
    atlas = Atlas.open(store)
    highest = [atlas.unit("block1", unit).natural.highest for unit in range(UNITS)]
    wanted = [unit for unit in range(UNITS) if 5 in highest[unit]]
    assert 0 < len(wanted) < UNITS
    assert wait(lambda: run(TOLD), f"{len(wanted)} of {UNITS} units").startswith(str(len(wanted)))
    assert run(SHOWN)[:20] == wanted[:20]
    run = page("block1", "#q=like%3A3")
    nearest = [int(text.rpartition(":")[2]) for text in atlas.unit("block1", 3).natural.nearest]
    assert run(SHOWN) == [3, *nearest]


@pytest.mark.parametrize(
    ("key", "column"), [("score", "clean_score"), ("percentile", "percentile")]
)
def test_sorting_puts_the_highest_first_and_the_other_way_the_lowest(
    browser, page, store, key, column
):
    values = Atlas.open(store).table("block1")[column]
    run = page("block1")
    run(
        "const sort = document.getElementById('sort'); sort.value = arguments[0]; "
        "sort.dispatchEvent(new Event('change'))",
        key,
    )
    found = values[run(SHOWN)][:40]
    np.testing.assert_allclose(found, np.sort(values)[::-1][:40], rtol=1e-4)
    browser.find_element("id", "down").click()
    np.testing.assert_allclose(values[run(SHOWN)][:40], np.sort(values)[:40], rtol=1e-4)
    assert wait(lambda: browser.current_url.endswith(f"#sort={key}"))
    # What the address says is what a new visit shows.
    before = run(SHOWN)[:40]
    address = browser.current_url.partition("#")[2]
    assert page("block1", f"#{address}")(SHOWN)[:40] == before


def test_the_keyboard_reaches_everything(browser, page):
    from selenium.webdriver import ActionChains, Keys

    run = page("block1")

    def press(*keys):
        ActionChains(browser).send_keys(*keys).perform()
        return run("const a = document.activeElement; return a.id || a.getAttribute('href')")

    reached = [press(Keys.TAB) for _ in range(7)]
    assert reached == ["../index.html", "find", "sort", "down", "smaller", "larger", "0.html"]
    columns = run("return Math.floor(document.getElementById('sheet').clientWidth / 100)")
    assert press(Keys.ARROW_RIGHT) == "1.html"
    assert press(Keys.ARROW_DOWN) == f"{1 + columns}.html"
    assert press(Keys.ARROW_UP) == "1.html"
    # Far away, where nothing was drawn before.
    assert press(Keys.END) == f"{UNITS - 1}.html"
    box = run("return document.activeElement.getBoundingClientRect().bottom")
    assert box <= SIZES["desk"][1]
    assert press(Keys.PAGE_UP).endswith(".html")
    assert press(Keys.HOME) == "0.html"
    assert press("/") == "find"
    assert press("17", Keys.ENTER) == "17.html"
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert wait(lambda: browser.current_url.endswith("block1/17.html"))
    assert run("return document.querySelector('h1').textContent") == "block1:17"


def test_only_what_is_in_sight_is_in_the_page_and_nothing_moves_by_itself(browser, page):
    run = page("block1", size="phone")
    assert 5 < len(run(SHOWN)) < 60
    run("document.getElementById('sheet').scrollTop = 3000")
    assert wait(lambda: 5 < len(run(SHOWN)) < 60 and max(run(SHOWN)) > 60)
    assert browser.execute_async_script(SHIFTS) == 0


@pytest.fixture
def touch(browser):
    """Puts fingers on the screen, moves them from place to place, and lifts them."""

    def send(kind, points):
        listed = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        browser.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": listed}
        )

    def moved(*places):
        for number, points in enumerate(places):
            send("Move" if number else "Start", points)
        for _ in range(4):  # a finger that rests gives no momentum
            time.sleep(0.05)
            send("Move", places[-1])
        send("End", [])

    enabled = {"enabled": True, "maxTouchPoints": 2}
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", enabled)
    yield moved
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_a_finger_moves_the_sheet_and_opens_a_unit(browser, page, touch):
    run = page("block1", size="phone")
    touch(*([(180, 700 - 20 * n)] for n in range(25)))
    top = "return document.getElementById('sheet').scrollTop"
    # As far as the finger went, but for where a touch becomes a pan.
    assert wait(lambda: 440 < run(top) <= 480)
    assert run("return [scrollX, scrollY, visualViewport.scale]") == [0, 0, 1]
    assert wait(lambda: min(run(SHOWN)[1:]) > 5)
    touch(*([(180, 300 + 40 * n)] for n in range(12)))
    assert wait(lambda: run(top) < 100)
    x, y, unit = run(
        "const link = document.querySelectorAll('#sheet a')[7], box = link.getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2, link.getAttribute('href')]"
    )
    assert browser.execute_async_script(SHIFTS) == 0
    touch([(x, y)])
    assert wait(lambda: browser.current_url.endswith(f"block1/{unit}"))


@pytest.mark.parametrize(("factor", "side"), [(2, "192"), (1 / 2, "32")])
def test_two_fingers_zoom_about_what_is_between_them(browser, page, touch, factor, side):
    run = page("block1", "#side=96&at=0,6000", size="phone")
    under = (
        "const off = (one) => { const box = one.getBoundingClientRect(); return Math.hypot("
        "box.x + box.width / 2 - 180, box.y + box.height / 2 - 450); };"
        "const near = Array.from(document.querySelectorAll('#sheet a'))"
        ".reduce((a, b) => off(a) < off(b) ? a : b);"
        "return Number(near.getAttribute('href').replace('.html', ''))"
    )
    before = run(under)
    assert 100 < before < 200
    apart = 60 if factor > 1 else 180
    spread = [apart * factor ** (n / 20) / 2 for n in range(21)]
    touch(*([(180 - one, 450), (180 + one, 450)] for one in spread))
    assert wait(lambda: f"side={side}" in browser.current_url)
    # The page itself is as large as it was, and the row between the fingers where it was.
    assert run("return visualViewport.scale") == 1
    columns = run("return Math.floor(document.getElementById('sheet').clientWidth / 36)")
    assert abs(run(under) - before) <= columns
    # One finger is a pan again.
    top = run("return document.getElementById('sheet').scrollTop")
    touch(*([(180, 500 + 20 * n)] for n in range(10)))
    assert wait(lambda: run("return document.getElementById('sheet').scrollTop") < top - 100)


def test_the_keyboard_reaches_all_of_a_units_page(browser, show, site):
    from selenium.webdriver import ActionChains, Keys

    show(site / "block1" / "9.html", SIZES["desk"])
    marked = browser.execute_script(
        "const all = document.querySelectorAll('a[href], button, input, select, summary, "
        "[tabindex=\"0\"]'); document.querySelectorAll('details').forEach(one => one.open = true); "
        "all.forEach((one, at) => one.dataset.at = at); return all.length"
    )
    reached = set()
    for _ in range(marked + 2):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.add(browser.execute_script("return document.activeElement.dataset.at"))
    assert {str(one) for one in range(marked)} <= reached


def test_zooming_goes_from_sprites_to_whole_pictures(browser, page, site):
    run = page("block1", "#side=32")
    source = "return document.querySelector('#sheet a[href=\"0.html\"] img').getAttribute('src')"
    assert run(source) == "sprite-0.jpg"
    assert run("return document.getElementById('smaller').disabled")
    for _ in range(5):
        browser.find_element("id", "larger").click()
    assert run(source) == "made_up_block1-0.png"
    assert run("return document.getElementById('larger').disabled")
    width = run("return document.querySelector('#sheet a[href=\"0.html\"] img').clientWidth")
    assert width == 256


def test_a_tile_shows_its_own_picture(browser, page, site):
    for unit in (0, 37, 299):
        with Image.open(site / "block1" / f"{unit}.jpg") as thumb:
            mean = np.asarray(thumb, float).mean((0, 1))
        assert np.abs(mean - color(unit)).max() < 25
        with Image.open(site / "block1" / "sprite-0.jpg") as sprite:
            x, y = unit % 32 * 32, unit // 32 * 32
            part = np.asarray(sprite.crop((x, y, x + 32, y + 32)), float).mean((0, 1))
        assert np.abs(part - mean).max() < 3


def test_a_units_page_has_all_that_is_known(browser, show, site, store):
    show(site / "block1" / "9.html", SIZES["desk"])
    unit = Atlas.open(store).unit("block1", 9)
    text = browser.execute_script("return document.body.textContent")
    assert f"{unit.clean_score:.3g}"[:4] in text
    assert f"{unit.negative.clean_score:.2g}"[:4] in text
    assert "featvis replay made_up_block1-9.png" in text
    assert f"{IMAGES} photographs" in text
    assert '"seed"' in text
    for near in unit.natural.nearest:
        assert near in text
    images = browser.execute_script(
        "return Array.from(document.images, i => [i.getAttribute('src'), i.alt])"
    )
    shown = dict(images)
    assert shown["made_up_block1-9.png"]
    assert shown["made_up_block1-9-negative.png"]
    kept = read_manifest(site / "block1" / "made_up_block1-9.png")
    assert kept == unit.picture.manifest


def test_tiles_with_places_lie_at_them(browser, show, tmp_path):
    # No two of these change places where rows and columns are taken for each other.
    places = [(0, 3), (1, 0), (2, 5), (2, 6), (4, 1)]
    with site_folder(tmp_path / "site") as draft:
        folder = draft / "map"
        folder.mkdir()
        thumbs = Thumbs(folder, (12, 12), len(places), grey=False)
        names = [f"{row}-{column}" for row, column in places]
        for number, name in enumerate(names):
            picture = Image.new("RGB", (12, 12), (50 * number, 0, 0))
            thumbs.add(number, name, picture)
            write(folder / f"{name}.html", "")
            write(folder / f"{name}-photograph.jpg", jpeg(picture))
        labels = ["cat", "dog", "cat, tiger", "", "fox"]
        sheet = Sheet(
            "A map", "", names, [f"{name}.jpg" for name in names], (12, 12), "cell ",
            ("cell", "cells"), labels, places=places, extent=(5, 7), photographs=True, side=64,
        )  # fmt: skip
        sheet.write(folder, thumbs.finish(), "")
    browser.get_log("browser")
    page = (tmp_path / "site" / "map" / "index.html").as_uri()
    show(page, SIZES["desk"])
    # As large as lets all of it be seen.
    room, used = browser.execute_script(
        "const s = document.getElementById('sheet'); return [[s.clientWidth, s.clientHeight], "
        "[s.scrollWidth, s.scrollHeight]]"
    )
    assert used == room
    browser.get("about:blank")
    show(f"{page}#side=64", SIZES["desk"])
    boxes = browser.execute_script(
        "return Object.fromEntries(Array.from(document.querySelectorAll('#sheet li'), li => "
        "[li.firstChild.getAttribute('href'), [li.getBoundingClientRect().y, "
        "li.getBoundingClientRect().x]]))"
    )
    corner = np.array(boxes["0-3.html"]) - [0, 3 * 68]
    for row, column in places:
        found = (np.array(boxes[f"{row}-{column}.html"]) - corner) / 68
        assert found.tolist() == pytest.approx([row, column])
    # The arrows go to what lies there.
    script = (
        "const a = document.querySelector(`a[href='${arguments[0]}.html']`); a.focus(); "
        "a.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[1], bubbles: true})); "
        "return document.activeElement.getAttribute('href')"
    )
    assert browser.execute_script(script, "1-0", "ArrowDown") == "4-1.html"
    assert browser.execute_script(script, "2-5", "ArrowRight") == "2-6.html"
    assert browser.execute_script(script, "0-3", "ArrowUp") == "0-3.html"
    type_in(browser, "find", "cat")
    assert wait(lambda: browser.execute_script(TOLD), "2 of 5 cells") == "2 of 5 cells"
    browser.find_element("css selector", "#show option[value=photograph]").click()
    sources = "return Array.from(document.querySelectorAll('#sheet img'), i => i.src.slice(-18))"
    assert set(browser.execute_script(sources)) == {"0-3-photograph.jpg", "2-5-photograph.jpg"}
    assert browser.get_log("browser") == []
