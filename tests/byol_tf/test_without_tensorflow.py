"""Tests of the commands without TensorFlow, as in an installation without an extra."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from byol_tf.config.loading import load_config, resolved_json
from tests.helpers.small_run import HISTORY
from tests.helpers.waiting import HANG

ROOT = Path(__file__).parents[2]
CHILD = """
import importlib, json, sys
from importlib.machinery import PathFinder

class WithoutTensorFlow(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "tensorflow" else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTensorFlow
for command, *words in json.loads(sys.argv[1]):
    try:
        code = importlib.import_module(f"byol_tf.{command}.__main__" if command != "compare" else "byol_tf.compare").main(words)
    except SystemExit as ended:
        code = ended.code
    print(f"{command}: {code}", file=sys.stderr, flush=True)
"""


@pytest.fixture
def run(tmp_path) -> Path:
    """Writes the part of a run folder that is read before TensorFlow is needed."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(resolved_json(load_config("demo")))
    (folder / "history.csv").write_text(HISTORY)
    (folder / "environment.json").write_text("{}")
    return folder


def test_commands_without_tensorflow_name_the_install_line(run, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32)).save(photos / name)
    (tmp_path / "encoder.keras").write_text("not looked into")
    (tmp_path / "classifier").mkdir()
    (tmp_path / "classifier" / "classifier.keras").write_text("not looked into")
    (tmp_path / "classifier" / "classes.json").write_text('["a", "b"]')
    before = sorted(tmp_path.rglob("*"))
    need = [
        ("train", "--run-dir", tmp_path / "new"),
        ("evaluate", "knn", "--run", run),
        ("export", "--run", run),
        ("report", "--run", run),
        (
            "embed",
            "--encoder",
            tmp_path / "encoder.keras",
            "--images",
            photos,
            "--out",
            tmp_path / "embedded",
        ),
        (
            *("predict", "--classifier", tmp_path / "classifier", "--images", photos),
            *("--out", tmp_path / "predicted"),
        ),
        ("convert", "pytorch", tmp_path / "encoder.keras", "--out", tmp_path / "converted"),
        (
            *("study", "few-labels", "--set", f"data.root={photos}"),
            *("--root", tmp_path / "studies"),
        ),
    ]
    need_none = [
        ("train", "--explain", "tau"),
        ("study", "--list", "few-labels"),
        ("compare", run, "--out", tmp_path / "compared.png"),
    ]
    words = json.dumps([[str(word) for word in line] for line in (*need, *need_none)])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    line = (
        "TensorFlow isn't installed; an extra chooses which of its packages: "
        'pip install -e ".[cpu]" (or gpu, for NVIDIA GPUs, or tpu)'
    )
    expected = [text for command, *_ in need for text in (line, f"{command}: 2")] + [
        f"{command}: 0" for command, *_ in need_none
    ]
    assert done.stderr.splitlines() == expected
    written = {path.name for path in set(tmp_path.rglob("*")) - set(before)}
    assert written == {"compared.png", "compared.csv", "compared.md"}
