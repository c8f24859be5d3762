"""The report: one self-contained file, for runs with and without labels, with and without images."""

import base64
import json
import logging
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_tf.report.__main__ import main
from byol_tf.runs.folder import RunFolder
from tests.helpers import small_run

CONFIG = small_run.CONFIG | {"probe": {"train_images": 100, "test_images": 100}}


class Page(HTMLParser):
    """Tags, sources, headings and text of a page; a tag that isn't closed is an error."""

    VOID = ("meta", "img", "link", "br", "hr", "input")

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.sources, self.headings, self.text = [], [], [], []
        self._open = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [
            value for name, value in attributes if name in ("src", "href", "srcset", "data")
        ]
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self._open:
            self.text.append(data)
        else:
            assert "url(" not in data and "@import" not in data


def page_of(run: Path) -> Page:
    """Returns a run's page, after a check that it needs no other file."""
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    for source in page.sources:
        encoding, _, data = source.partition(",")
        assert encoding == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    return page


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run's folder without its training, and with a command that has to be quoted."""
    folder = small_run.write_run(tmp_path_factory.mktemp("report") / "run", CONFIG)
    folder.result.write_text(
        '{"system": "BYOL", "epochs": 1, "test_images": 898, "supervised_accuracy": 0.4}'
    )
    environment = json.loads(folder.environment.read_text())
    folder.environment.write_text(
        json.dumps(environment | {"command": ["python", "-m", "x", "--set", "a=<b> & c"]})
    )
    return folder.root


def test_page_has_all_sections_of_a_run(run, capsys):
    assert main(["--run", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    page = page_of(run)
    text = " ".join(page.text)
    assert page.headings == [
        "Accuracy on frozen features",
        "Curves",
        "Collapse",
        "Neighbours",
        "Map",
        "Views",
        "Confusions of the probe",
        "What differs from the defaults",
        "How it was run",
        "All settings",
    ]
    assert "tiny: BYOL, convnet on digits" in text
    assert "The encoder has learned: linear probe 60.0%, untrained 20.0% (+40.0 points" in text
    assert re.search(r"predicted instead of the class \w+ \w+ \d+ of \d+ \(\d+%\)", text)
    assert "In brackets: 95% interval, from 898 test images." in text
    assert "python -m x --set 'a=<b> & c'" in text
    assert len(page.sources) == 4  # this run has drawn neither curves nor views
    assert text.count("the run has drawn none") == 2
    for name in ("collapse", "neighbours", "map", "confusion"):
        with Image.open(run / "figures" / f"{name}.png") as image:
            assert image.width > 300


def test_too_few_test_images_leave_no_map_and_no_confusions(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["probe"]["test_images"] = 40
    (copy / "config.json").write_text(json.dumps(config))
    assert main(["--run", str(copy)]) == 0
    text = " ".join(page_of(copy).text)
    assert "40 test images show nothing there" in text
    assert "40 test images of 10 classes are too few to read one from" in text


def test_neighbours_figure_shows_those_of_both_networks(monkeypatch):
    """The frames show whether a neighbour is of the query's class."""
    from byol_tf.report import figures
    from byol_tf.report.representations import RepresentationAnalysis
    from pipelines.sources import ArrayImages

    drawn = {}
    monkeypatch.setattr(
        figures,
        "save_figure",
        lambda figure, path: drawn.setdefault("sheet", figure.axes[0].images[0].get_array()),
    )
    labels = np.arange(20) % 2
    by_class = np.eye(2)[labels].astype(np.float32) + 0.01 * np.random.default_rng(0).normal(
        size=(20, 2)
    ).astype(np.float32)
    unrelated = np.stack([np.cos(np.arange(20)), np.sin(np.arange(20))], axis=1).astype(np.float32)
    images = ArrayImages(np.zeros((20, 8, 8, 3), np.uint8), labels)
    figures.neighbours_figure(
        Path("x"),
        RepresentationAnalysis(
            images=images,
            labels=labels,
            class_names=("a", "b"),
            trained=by_class,
            untrained=unrelated,
            spectra={},
            effective_ranks={},
            test_labels=None,
            predicted_labels=None,
        ),
        0,
        "untrained",
    )
    sheet, step = drawn["sheet"], figures._CELL + figures._GAP
    frames = sheet[1::step, 1 + step :: step]
    blue = (frames == (0x1F, 0x5F, 0xBF)).all(axis=-1)
    assert blue.shape == (10, 8)
    assert blue[1::2].all()
    assert 0.1 < blue[::2].mean() < 0.9


def test_figures_of_a_collapsed_encoder(tmp_path):
    from byol_tf.report.figures import (
        collapse_figure,
        confusion_figure,
        map_figure,
        neighbours_figure,
    )
    from byol_tf.report.representations import RepresentationAnalysis
    from pipelines.sources import ArrayImages

    labels = np.arange(30) % 3
    same = np.ones((30, 4), np.float32)
    images = ArrayImages(np.zeros((30, 8, 8, 3), np.uint8), labels)
    analysis = RepresentationAnalysis(
        images=images,
        labels=labels,
        class_names=("a", "b $", "日"),
        trained=same,
        untrained=same,
        spectra={"trained": np.zeros(4)},
        effective_ranks={"trained": 1.0},
        test_labels=labels,
        predicted_labels=np.zeros(30, np.int64),
    )
    collapse_figure(tmp_path / "collapse.png", [{"epoch": 0.0, "projection_std": 0.0}], analysis)
    neighbours_figure(tmp_path / "neighbours.png", analysis, 0, "untrained")
    map_figure(tmp_path / "map.png", analysis, 0, "untrained")
    confusion_figure(tmp_path / "confusion.png", analysis)
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_page_without_labels_or_images(run, tmp_path, capsys):
    draw, copy, photos = np.random.default_rng(0), tmp_path / "run", tmp_path / "photos"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "figures", ignore_errors=True)
    photos.mkdir()
    for number in range(12):
        Image.fromarray(draw.integers(0, 255, (30 + number, 40, 3), dtype=np.uint8)).save(
            photos / f"{number}.png"
        )
    config = CONFIG | {"data": {"source": "folder", "root": str(photos)}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "history.csv").write_text(
        small_run.HISTORY.replace("0.2,0.1", ",").replace("0.6,0.5", ",")
    )
    (copy / "result.json").unlink()
    assert main(["--run", str(copy)]) == 0
    text = " ".join(page_of(copy).text)
    assert text.count("Not shown: there are no labelled images.") == 2
    assert "those among 12 images that were learned from" in text
    assert sorted(path.name for path in (copy / "figures").iterdir()) == [
        "collapse.png",
        "neighbours.png",
    ]
    moved = photos.rename(tmp_path / "moved")
    capsys.readouterr()
    assert main(["--run", str(copy), "--set", f"data.root={moved}"]) == 0
    assert "those among 12 images" in " ".join(page_of(copy).text)
    assert capsys.readouterr().err == ""
    assert main(["--run", str(copy), "--set", "seed=3"]) == 2
    assert "--set seed=3: expected a key of data" in capsys.readouterr().err
    assert main(["--run", str(copy)]) == 0
    assert re.fullmatch(
        "without the figures that need images and weights: data.root: there is no folder .*. "
        "--set data.root=... names the place of the images\n",
        capsys.readouterr().err,
    )
    assert " ".join(page_of(copy).text).count("Not shown: data.root: there is no folder") == 3


def test_linked_picture_is_not_shown(run, tmp_path):
    """A link in a folder from elsewhere could lead to any picture of the user's."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    data = {"source": "folder", "root": str(tmp_path / "missing")}
    (copy / "config.json").write_text(json.dumps(CONFIG | {"data": data}))
    (copy / "figures").mkdir(exist_ok=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "private.png")
    shutil.copy(tmp_path / "private.png", copy / "figures" / "views.png")
    (copy / "figures" / "curves.png").symlink_to(tmp_path / "private.png")
    assert main(["--run", str(copy)]) == 0
    private = base64.b64encode((tmp_path / "private.png").read_bytes()).decode()
    shown = [source for source in page_of(copy).sources if source.endswith(f",{private}")]
    assert len(shown) == 1  # the file, and not the link


def test_failed_report_is_logged_and_ends_no_run(tmp_path, caplog):
    from byol_tf.train.finish import write_final_report

    folder = RunFolder(tmp_path / "my run")
    folder.root.mkdir()
    folder.config.write_text('{"name": "changed-while-it-ran", "tau": 3}')
    with caplog.at_level(logging.INFO):
        write_final_report(None, folder, None, None, None)
    assert caplog.messages == [
        "writing the report",
        f"report not written: {folder.config}: tau: expected an object; received 3. "
        f"To write it: python -m byol_tf.report --run '{folder.root}'",
    ]


def test_folder_without_a_run_is_refused(copied_run, tmp_path, capsys):
    assert main(["--run", str(tmp_path)]) == 2
    assert "expected a run folder, with a config.json; found none there" in capsys.readouterr().err
    folder = copied_run(tmp_path / "run")
    folder.history.write_text("".join(small_run.HISTORY.splitlines(keepends=True)[:2]))
    assert main(["--run", str(folder.root)]) == 2
    assert (
        "expected a run of one epoch or more; it has none in history.csv yet"
        in capsys.readouterr().err
    )
