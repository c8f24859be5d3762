"""A browser for tests: headless Chromium under selenium, which asks nothing of the network.

Where `BYOL_TF_TEST_BROWSER` is set a browser has to be there; else the tests are skipped without
one.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.waiting import wait_until

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def started_browser(profile: Path) -> Iterator[Any]:
    """The driver of a browser with an empty profile: for a fixture that yields from it."""
    missing = pytest.fail if os.environ.get("BYOL_TF_TEST_BROWSER") else pytest.skip
    try:
        from selenium import webdriver
    except ImportError:
        missing("selenium isn't installed (extra test)")
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        missing(
            "no browser: install Debian's chromium and chromium-driver, or Chrome and chromedriver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--no-first-run",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-unsafe-swiftshader",  # draws the projector where there is no GPU
        "--window-size=1400,3200",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield driver
    driver.quit()


def shown(browser: Any, query: Callable[[], Any]) -> Any:
    """Returns what a query of the browser gives as soon as it is true."""
    results = []

    def is_shown() -> bool:
        results[:] = [query()]
        return bool(results[0])

    wait_until(is_shown, lambda: browser.find_element("tag name", "body").text[:500], pause=0.2)
    return results[0]
