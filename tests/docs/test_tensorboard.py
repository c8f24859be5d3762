"""TensorBoard on runs, in a real browser: charts with the figures of `history.csv`, pictures,
config, hyper-parameters, the projector.
"""

import contextlib
import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_tf.train.callbacks.history import SCALARS
from tests.helpers.browser import shown, started_browser
from tests.helpers.waiting import HANG

pytestmark = pytest.mark.long


def trained(folder: Path, *overrides: str) -> Path:
    """A run of the demo on few images, in a new folder."""
    from byol_tf.train.__main__ import main

    small = [
        "data.pretrain_images=256",
        "optimizer.warmup_epochs=0",
        "probe.every_epochs=1",
        "probe.supervised=false",
        *overrides,
    ]
    assert (
        main(
            [
                "--run-dir",
                str(folder),
                *(word for override in small for word in ("--set", override)),
            ]
        )
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a small run."""
    return trained(tmp_path_factory.mktemp("tensorboard") / "run", "training.epochs=2")


@pytest.fixture(scope="module")
def address(run):
    with served(run / "logs") as found:
        yield found


@contextlib.contextmanager
def served(logs: Path):
    """Gives the address of a TensorBoard server on a folder, at a port that the system chooses."""
    line = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(logs),
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        said = iter(server.stderr.readline, "")
        found = next(
            filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in said)), None
        )
        assert found, "TensorBoard ended without an address"
        yield found[0]
    finally:
        server.terminate()
        server.communicate(timeout=HANG)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium under selenium, which asks nothing of the network."""
    yield from started_browser(tmp_path_factory.mktemp("browser"))


def pixels(element) -> np.ndarray:
    """uint8 `[H, W, 3]` of an element as it is drawn."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB"))


def test_each_column_of_the_history_is_a_chart_with_its_last_value_and_a_line(
    run, address, browser
):
    with (run / "history.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    expected = {
        SCALARS[name][0]: float(value) for name, value in last.items() if value and name != "epoch"
    }
    assert len(expected) >= 8
    browser.get(f"{address}/#timeseries")
    for tag, value in expected.items():
        # Cards lie in folded groups and are drawn when they come into sight; a filter of one tag
        # shows its card alone.
        browser.get(f"{address}/?tagFilter=^{tag}$#timeseries")
        card = shown(browser, lambda: browser.find_elements("css selector", "scalar-card"))[0]
        cells = shown(
            browser,
            lambda card=card: [
                c.text.strip()
                for c in card.find_elements("css selector", "tb-data-table-content-cell")
            ],
        )
        shown(browser, lambda card=card: card.find_elements("css selector", "line-chart canvas"))
        assert float(cells[3].replace(",", "")) == pytest.approx(value, rel=2e-3, abs=1e-4), (
            tag,
            cells,
        )
        colour = card.find_element(
            "css selector", "tb-data-table-content-cell .row-circle span"
        ).value_of_css_property("background-color")
        wanted = np.array(re.findall(r"\d+", colour)[:3], int)
        chart = card.find_element("css selector", "line-chart .series-view")
        near = shown(
            browser,
            lambda chart=chart, wanted=wanted: (
                (np.abs(pixels(chart).astype(int) - wanted).sum(-1) < 60).any(0).sum() > 20
            ),
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


def test_the_views_and_each_figure_are_shown(run, address, browser):
    browser.get(f"{address}/#images")
    browser.refresh()
    sizes = []
    for name in ("views", "curves", "collapse", "neighbours", "map", "confusion"):
        with Image.open(run / "figures" / f"{name}.png") as picture:
            sizes.append(list(picture.size))
    assert len(set(map(tuple, sizes))) == len(sizes)  # so that each size is one figure
    shown(browser, lambda: all(size in browser.execute_script(PICTURES) for size in sizes))


def test_the_config_is_shown_as_text(address, browser):
    browser.get(f"{address}/#text")
    browser.refresh()
    body = browser.find_element("tag name", "body")
    shown(browser, lambda: '"pretrain_images": 256' in body.text)


TEXTS = """
const found = [];
const look = node => node.childNodes.forEach(child => {
  if (child.nodeType === Node.TEXT_NODE && child.textContent.trim()) found.push(child.textContent.trim());
  if (child.nodeType !== Node.ELEMENT_NODE || ["STYLE", "SCRIPT", "TEMPLATE"].includes(child.tagName)) return;
  if (child.shadowRoot) look(child.shadowRoot);
  look(child);
});
look(arguments[0]);
return found;
"""
"""What the children of an element say, shadow roots included, in order."""

ALL = """
const found = [];
const look = root => root.querySelectorAll("*").forEach(e => {
  if (e.matches(arguments[0])) found.push(e);
  if (e.shadowRoot) look(e.shadowRoot);
});
look(document);
return found;
"""
"""All elements of a selector, those in shadow roots too."""


def table(texts: list[str], names: set[str]) -> dict[str, dict[str, str]]:
    """HParams' table view: trial -> column -> cell."""
    first = min(texts.index(name) for name in names)
    columns = texts[texts.index("Show Metrics") + 1 : first]
    rows = [
        texts[start : start + 1 + len(columns)]
        for start in range(first, first + len(names) * (1 + len(columns)), 1 + len(columns))
    ]
    return {name: dict(zip(columns, cells, strict=True)) for name, *cells in rows}


def test_each_run_is_a_row_of_hparams_with_its_keys_and_last_figures(run, browser):
    second = trained(run.with_name("second"), "training.epochs=1", "seed=1")
    names = {run.name, second.name}
    with served(run.parent) as address:
        browser.get(f"{address}/#hparams")

        def texts() -> list[str]:
            tables = browser.execute_script(ALL, "vaadin-grid.session-group-table")
            return browser.execute_script(TEXTS, tables[0]) if tables else []

        shown(browser, lambda: names <= set(texts()))
        rows = table(texts(), names)
    assert {
        name: (float(row["seed"]), float(row["training.epochs"])) for name, row in rows.items()
    } == {"run": (0, 2), "second": (1, 1)}
    for folder in (run, second):
        with (folder / "history.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        for column in ("knn_accuracy", "probe_accuracy", "effective_rank"):
            assert float(rows[folder.name][SCALARS[column][0]]) == pytest.approx(
                float(last[column]), rel=1e-3
            )


def test_the_projector_draws_each_image_as_itself(run, address, browser):
    assert len((run / "logs" / "classes.tsv").read_text().splitlines()) == 1_000
    browser.set_window_size(1400, 900)  # it turns, which takes a processor's time for each pixel
    browser.get(f"{address}/#projector")
    browser.refresh()
    try:
        for _ in range(2):  # TensorBoard has it in a frame in a frame
            browser.switch_to.frame(
                shown(browser, lambda: browser.execute_script(ALL, "iframe"))[0]
            )
        # One is for names, and lies over the one with the images: an element's picture shows both.
        canvas = shown(
            browser,
            lambda: [
                each for each in browser.execute_script(ALL, "canvas") if each.size["width"] > 300
            ],
        )[0]
        # Textures have dark lines on a light ground. Without the sprite each image is a small light
        # dot, and 0.04% of the canvas is dark.
        shown(browser, lambda: (pixels(canvas).max(-1) < 90).mean() > 0.02)
        assert "1000x96" in browser.execute_script(TEXTS, browser.find_element("tag name", "body"))
    finally:
        browser.switch_to.default_content()
        browser.set_window_size(1400, 3200)
