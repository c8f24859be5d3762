"""TensorBoard on a run's folder, in a real browser: charts are drawn, with the figures of `history.csv`; picture and config are shown."""

import csv
import io
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_tf.callbacks.history import SCALARS

pytestmark = pytest.mark.long

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a small run."""
    from byol_tf.train import main

    folder = tmp_path_factory.mktemp("tensorboard") / "run"
    small = ["training.epochs=2", "data.pretrain_images=256", "optimizer.warmup_epochs=0", "probe.every=1", "probe.supervised=false"]
    assert main(["--run-dir", str(folder), *(word for override in small for word in ("--set", override))]) == 0
    return folder


@pytest.fixture(scope="module")
def address(run):
    """Of a TensorBoard server on the run's logs, at a port that the system chooses."""
    line = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run / "logs"), "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        said = iter(server.stderr.readline, "")
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in said)), None)
        assert found, "TensorBoard ended without an address"
        yield found[0]
    finally:
        server.terminate()
        server.communicate(timeout=30)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium under selenium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium isn't installed (extra test)")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no browser: install Debian's chromium and chromium-driver, or Chrome and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,3200"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield driver
    driver.quit()


def shown(browser, what, seconds=60):
    """What a function of the browser gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not shown; the page says: {browser.find_element('tag name', 'body').text[:500]}"
        time.sleep(0.2)
    return found


def pixels(element) -> np.ndarray:
    """uint8 `[H, W, 3]` of an element as it is drawn."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB"))


def test_each_column_of_the_history_is_a_chart_with_its_last_value_and_a_line(run, address, browser):
    with (run / "history.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    expected = {SCALARS[name][0]: float(value) for name, value in last.items() if value and name != "epoch"}
    assert len(expected) >= 8
    browser.get(f"{address}/#timeseries")
    for tag, value in expected.items():
        # Cards lie in folded groups and are drawn when they come into sight; a filter of one tag shows its card alone.
        browser.get(f"{address}/?tagFilter=^{tag}$#timeseries")
        card = shown(browser, lambda: browser.find_elements("css selector", "scalar-card"))[0]
        cells = shown(browser, lambda card=card: [c.text.strip() for c in card.find_elements("css selector", "tb-data-table-content-cell")])
        shown(browser, lambda card=card: card.find_elements("css selector", "line-chart canvas"))
        assert float(cells[3].replace(",", "")) == pytest.approx(value, rel=2e-3, abs=1e-4), (tag, cells)
        colour = card.find_element("css selector", "tb-data-table-content-cell .row-circle span").value_of_css_property("background-color")
        wanted = np.array(re.findall(r"\d+", colour)[:3], int)
        chart = card.find_element("css selector", "line-chart .series-view")
        near = shown(
            browser, lambda chart=chart, wanted=wanted: (np.abs(pixels(chart).astype(int) - wanted).sum(-1) < 60).any(0).sum() > 20
        )
        assert near


PICTURES = """
const found = [];
const look = root => root.querySelectorAll("*").forEach(e => {
  if (e.tagName === "IMG" && e.complete) found.push([e.naturalWidth, e.naturalHeight]);
  if (e.shadowRoot) look(e.shadowRoot);
});
look(document);
return found;
"""
"""The sizes of all pictures that the browser has decoded; TensorBoard's own lie in shadow roots."""


def test_the_picture_of_the_views_is_shown(run, address, browser):
    browser.get(f"{address}/#images")
    browser.refresh()
    with Image.open(run / "figures" / "views.png") as views:
        size = list(views.size)
    shown(browser, lambda: size in browser.execute_script(PICTURES))


def test_the_config_is_shown_as_text(address, browser):
    browser.get(f"{address}/#text")
    browser.refresh()
    body = browser.find_element("tag name", "body")
    shown(browser, lambda: '"pretrain_images": 256' in body.text)
