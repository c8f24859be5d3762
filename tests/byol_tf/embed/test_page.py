"""The page of photos: what is written in it, and what a browser shows of it."""

import base64
import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from byol_tf.embed import page as page_module
from byol_tf.embed.page import write_page
from pipelines.sources import FlatImageFolder
from tests.helpers.browser import shown, started_browser

ODD = "a'b\"c <script>document.title='bad'<"
"""A folder's name. With the one in it, which begins with `script>`, it ends the page's element."""
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> SimpleNamespace:
    """Twenty photos of each colour and one with an odd name, and embeddings that are directions
    near one for each colour."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("<b>photos")
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(20):
            Image.new("RGB", (200, 150), colour).save(folder / name / f"{number:02}.png")
    odd = folder / ODD / "script><img src=x onerror=alert(1)>"
    odd.mkdir(parents=True)
    Image.new("RGB", (30, 60)).save(odd / "@DATA@ &amp;.png")
    images = FlatImageFolder(str(folder), "--images")
    classes = [photo.name.split("/")[0] for photo in images.photos]
    directions = {name: rng.normal(size=64) for name in (*COLOURS, ODD)}
    embeddings = [directions[name] + 0.3 * rng.normal(size=64) for name in classes]
    return SimpleNamespace(
        images=images,
        photos=images.photos,
        embeddings=np.array(embeddings, np.float32),
        colours=[name if name in COLOURS else "" for name in classes],
    )


@pytest.fixture(scope="module")
def page(found, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    labels = ["<b>first</b>" if row < 5 else "" for row in range(len(found.photos))]
    assert write_page(path, found, {"prediction": found.colours, "label": labels}) == 61
    return path


def data_of(page: Path) -> dict:
    (text,) = re.findall(
        r'<script id="data" type="application/json">(.*?)</script>', page.read_text()
    )
    return json.loads(text)


def test_the_page_has_all_photos_and_nothing_from_elsewhere(found, page):
    text, data = page.read_text(encoding="utf-8"), data_of(page)
    assert data["names"] == [photo.name for photo in found.photos]
    assert str(found.images.folder) not in text  # the page may be sent to others
    assert not re.search(r"(src|href)=\S|https?:|url\(|fetch\(", text.replace("img src=x", ""))
    assert text.count("<script") == 2 and "<b>" not in text
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        in text
    )
    assert data["columns"]["prediction"]["values"] == ["blue", "green", "red", ""]
    assert data["columns"]["label"]["values"] == ["<b>first</b>", ""]


def cosines_of(data: dict) -> np.ndarray:
    """All cosines as the page computes them."""
    vectors = np.frombuffer(base64.b64decode(data["vectors"]), np.int8)
    vectors = vectors.reshape(len(data["names"]), -1) * np.array(data["scales"])
    along = vectors @ np.array(data["mean"])
    return data["meanSquare"] + along[:, None] + along + vectors @ vectors.T


def test_cosines_of_the_page_are_those_of_the_embeddings(found, page):
    unit = found.embeddings / np.linalg.norm(found.embeddings, axis=1, keepdims=True)
    data = data_of(page)
    assert len(data["scales"]) == 64
    difference = np.abs(cosines_of(data) - unit @ unit.T)
    assert difference[~np.eye(61, dtype=bool)].max() < 0.01


def test_random_photos_of_many_are_on_the_page(found, tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "MAX_PHOTOS", 3)
    assert write_page(tmp_path / "page.html", found, {"prediction": found.colours}) == 3
    text, data = (tmp_path / "page.html").read_text(), data_of(tmp_path / "page.html")
    assert "61 photos, of which 3 are on this page" in text
    rows = [[photo.name for photo in found.photos].index(name) for name in data["names"]]
    column = data["columns"]["prediction"]
    assert [column["values"][index] for index in column["index"]] == [
        found.colours[row] for row in rows
    ]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from started_browser(tmp_path_factory.mktemp("browser"))


def names_shown(browser, part: str) -> list[str]:
    buttons = browser.find_elements("css selector", f"#{part} button")
    return [button.get_attribute("title") for button in buttons]


@pytest.mark.long
def test_a_browser_shows_filters_and_the_nearest_photos(found, page, browser):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    def find(name):
        return browser.find_element("id", name)

    names = [photo.name for photo in found.photos]
    browser.get(page.as_uri())
    assert shown(browser, lambda: names_shown(browser, "photos")) == names
    assert find("count").text == "61 of 61 photos"
    sizes = "return [...document.querySelectorAll('#photos img')].map(i => i.naturalWidth)"
    shown(browser, lambda: all(browser.execute_script(sizes)))
    # A photo is chosen by a click; the nearest are of its colour, by descending cosine.
    browser.find_elements("css selector", "#photos button")[names.index("green/03.png")].click()
    nearest = shown(browser, lambda: names_shown(browser, "nearest"))
    assert len(nearest) == 12 and all(name.startswith("green/") for name in nearest)
    unit = found.embeddings / np.linalg.norm(found.embeddings, axis=1, keepdims=True)
    cosines = [float(text) for text in find("nearest").text.split()]
    assert cosines == sorted(cosines, reverse=True)
    chosen = names.index("green/03.png")
    assert cosines == pytest.approx(
        [unit[chosen] @ unit[names.index(n)] for n in nearest], abs=0.01
    )
    # By a neighbour's click that one is; the browser's way back leads to the one before.
    browser.find_elements("css selector", "#nearest button")[0].click()
    shown(browser, lambda: find("chosen").text.startswith(nearest[0]))
    browser.back()
    shown(browser, lambda: find("chosen").text.startswith("green/03.png"))
    assert "prediction\ngreen" in find("chosen").text
    # Filters by text, by keyboard, and by a class; the nearest are of those shown.
    browser.find_element("tag name", "body").send_keys("/", "LUE/1")
    shown(browser, lambda: find("count").text == "10 of 61 photos")
    assert names_shown(browser, "photos") == [f"blue/1{number}.png" for number in range(10)]
    assert set(names_shown(browser, "nearest")) == set(names_shown(browser, "photos"))
    find("text").send_keys(Keys.ESCAPE)
    shown(browser, lambda: find("count").text == "61 of 61 photos")
    find("filter-prediction").send_keys("red")
    shown(browser, lambda: find("count").text == "20 of 61 photos")
    row = names.index("red/07.png")
    x, y = browser.execute_script("return placed[arguments[0]]", row)
    size = find("map").size
    offset = (round(x - size["width"] / 2), round(y - size["height"] / 2))
    ActionChains(browser).move_to_element_with_offset(find("map"), *offset).click().perform()
    shown(browser, lambda: find("chosen").text.startswith("red/07.png"))
    assert find("tip").is_displayed()
    browser.execute_script("document.activeElement.blur()")
    browser.find_element("tag name", "body").send_keys(Keys.ARROW_RIGHT)
    shown(browser, lambda: find("chosen").text.startswith("red/08.png"))
    # The map draws the classes' colours.
    colours = browser.execute_script(
        "const c = document.getElementById('map'), p = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data, s = new Set();"
        "for (let i = 0; i < p.length; i += 4) s.add(p.slice(i, i + 3).join());"
        "return s.size"
    )
    assert colours > 3


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_odd_names_are_text_and_nothing_is_cut_off(found, page, browser, width, scheme):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    (row,) = [row for row, photo in enumerate(found.photos) if ODD in photo.name]
    browser.get(f"{page.as_uri()}#{row}")
    browser.refresh()
    chosen = browser.find_element("css selector", "#chosen strong")
    assert chosen.text == found.photos[row].name
    assert browser.title == browser.find_element("tag name", "h1").text
    assert browser.title.startswith("Photos of <b>photos")
    assert browser.execute_script("return document.querySelectorAll('script').length") == 2
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    ink, ground = (
        browser.find_element("tag name", "body").value_of_css_property(name)
        for name in ("color", "background-color")
    )
    levels = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, ground)]
    assert (levels[0] < levels[1]) == (scheme == "light") and abs(levels[0] - levels[1]) > 450
    assert browser.get_log("browser") == []  # neither an error nor something that CSP refused
