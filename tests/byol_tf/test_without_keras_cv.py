"""Tests of the commands where keras-cv can't be imported, as beside Keras 3.16."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_tf.config.loading import load_config
from byol_tf.errors import ConfigError
from byol_tf.runs.data import check_view_engine
from tests.helpers import torch_files, torch_resnet
from tests.helpers.waiting import HANG

ROOT = Path(__file__).parents[2]
CHILD = """
import importlib, json, sys

sys.modules["keras_cv"] = None  # its import raises ModuleNotFoundError
for command, *words in json.loads(sys.argv[1]):
    module = "byol_tf." + (command if command in ("compare", "doctor") else f"{command}.__main__")
    try:
        code = importlib.import_module(module).main(words)
    except SystemExit as ended:
        code = ended.code
    print(f"{command}: {code}", flush=True)
"""
TINY = (
    *("data.source=digits", "encoder.width=0.25", "training.epochs=1", "probe.supervised=false"),
    *("optimizer.warmup_epochs=0", "training.batch_size=64"),
    *("projector.hidden_size=16", "projector.output_size=8", "predictor.hidden_size=16"),
)


def test_engine_that_cannot_be_imported_is_refused(monkeypatch):
    for name in {"keras_cv", *(each for each in sys.modules if each.startswith("keras_cv."))}:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "pipelines.views.keras_cv", raising=False)
    keys = ["data.source=digits", "views.engine="]
    check_view_engine(load_config("demo", [keys[0], keys[1] + "keras"]))
    with pytest.raises(ConfigError, match=r'views.engine: "keras_cv" needs .* Use "keras", whose'):
        check_view_engine(load_config("demo", [keys[0], keys[1] + "keras_cv"]))


@pytest.mark.long
def test_commands_work_and_only_its_engine_is_refused(tmp_path):
    photos, run = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(photos / f"{number}.png")
    labels, weights = tmp_path / "labels.csv", tmp_path / "resnet18.pth"
    labels.write_text("path,label\n0.png,a\n1.png,b\n")
    torch_files.save(weights, torch_resnet.state_dict())
    few = ("--few", labels, "--export", tmp_path / "classifier")
    train = ["train", *(word for key in TINY for word in ("--set", key))]
    lines = [
        (*train, "--set", "views.engine=keras_cv", "--run-dir", tmp_path / "refused"),
        (*train, "--run-dir", run),
        ("evaluate", "knn", "--run", run, "--out", tmp_path / "knn.json"),
        ("export", "--run", run, "--format", "keras"),
        ("embed", "--encoder", run, "--images", photos, "--out", tmp_path / "embedded", *few),
        ("predict", "--classifier", few[3], "--images", photos, "--out", tmp_path / "predicted"),
        ("report", "--run", run),
        ("compare", run, "--out", tmp_path / "compared.png"),
        ("convert", "pytorch", weights, "--out", tmp_path / "converted"),
        ("pack", "--images", photos, "--out", tmp_path / "shards"),
        ("study", "--list", "few-labels"),
        ("doctor",),
    ]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps([[str(word) for word in line] for line in lines])],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    codes = [line for line in done.stdout.splitlines() if line.rpartition(": ")[2].isdecimal()]
    assert done.returncode == 0, done.stderr
    assert codes == ["train: 2", *(f"{command}: 0" for command, *_ in lines[1:])]
    assert 'views.engine: "keras_cv" needs keras-cv 0.9.0 and Keras up to 3.15' in done.stderr
    assert 'Use "keras", whose views are the same to rounding, or "fused"' in done.stderr
    assert not (tmp_path / "refused").exists()
