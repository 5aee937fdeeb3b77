"""A real browser: Debian's chromium and chromium-driver, driven by selenium."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if not found or not driver:
        pytest.skip(f"needs one of {', '.join(names)}, and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = found
    # A root user, as in a container, has no sandbox.
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def show(browser):
    """Opens a page on a screen of a size, in light or dark."""

    def opened(page, size, scheme="light"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        width, height = size
        # A window has a least width of its own; the emulated screen has not.
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        browser.get(page if isinstance(page, str) else page.as_uri())
        assert browser.execute_script("return innerWidth") == width

    return opened
