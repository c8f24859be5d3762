"""The examples run as they are, on less data."""

import csv
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from byol_tf import build_encoder, export_encoder, inference_model
from byol_tf.embed.__main__ import main as embed
from tests.helpers.waiting import HANG

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "byol_minimal.py"
ENGINES = ROOT / ".venv-engines" / "bin" / "python"


def test_minimal_example_trains_and_prints_both_accuracies(monkeypatch, capsys):
    arguments = ["--images", "128", "--labels", "50", "--epochs", "1", "--batch-size", "32"]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    line = capsys.readouterr().out.splitlines()[-1]
    accuracies = re.fullmatch(
        r"accuracy: ([\d.]+)% untrained, ([\d.]+)% trained without labels", line
    )
    assert all(0.0 <= float(accuracy) <= 100.0 for accuracy in accuracies.groups())


def test_minimal_example_fits_on_two_screens():
    assert len(EXAMPLE.read_text().splitlines()) < 100


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder with 60 crops of photos, half PNG and half JPEG, and a broken file."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(60):
        image = Image.fromarray(load_sample_images().images[number % 2])
        left, top, side = rng.integers((0, 0, 60), (300, 200, 200)).tolist()
        crop = image.crop((left, top, left + side, top + side // 2 + 20))
        crop.save(folder / f"{number:02}.{'png' if number < 30 else 'jpg'}")
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("example", "source", "out"), [("embed_ray", "", ""), ("embed_beam", "/**.*", "/part")]
)
def test_engines_embed_as_the_command_does(photos, tmp_path, example, source, out):
    if not ENGINES.exists():
        pytest.skip("no .venv-engines; make engines")
    encoder = inference_model(build_encoder("convnet", image_size=32), 32, (0.5,) * 3, (0.25,) * 3)
    export_encoder(encoder, tmp_path / "exported")
    saved_model = str(tmp_path / "exported" / "encoder" / "1")
    arguments = ["--encoder", saved_model, "--images", str(photos), "--out", str(tmp_path / "ours")]
    assert embed(arguments) == 0
    with (tmp_path / "ours" / "index.csv").open() as file:
        names = [row["path"] for row in csv.DictReader(file)]
    ours = np.load(tmp_path / "ours" / "embeddings.npy")

    theirs = tmp_path / "theirs"
    script = ROOT / "examples" / f"{example}.py"
    command = [ENGINES, script, saved_model, f"{photos}{source}", f"{theirs}{out}"]
    done = subprocess.run(command, timeout=HANG, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "broken.jpg can't be decoded" in done.stdout + done.stderr
    rows = [row for file in theirs.iterdir() for row in pq.read_table(file).to_pylist()]
    by_name = {Path(row["path"]).name: row["embedding"] for row in rows}
    assert sorted(by_name) == names and len(rows) == len(names)
    theirs = np.array([by_name[name] for name in names])
    png = np.array([name.endswith(".png") for name in names])
    np.testing.assert_allclose(theirs[png], ours[png], rtol=1e-4, atol=1e-5)
    # TensorFlow decodes JPEGs faster and less exactly than Pillow
    cosines = (theirs * ours).sum(1) / np.linalg.norm(theirs, axis=1) / np.linalg.norm(ours, axis=1)
    assert cosines.min() > 0.99
