"""The BYOL paper's transfer and semi-supervised protocols, and the STL-10 authors' fine-tuning, on
CIFAR-10 photos."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from byol_tf.evaluate.__main__ import main


@pytest.fixture(scope="module")
def run(copied_run, tmp_path_factory) -> Path:
    """The folder of a run that was written without training."""
    return copied_run(tmp_path_factory.mktemp("protocols") / "run").root


@pytest.fixture
def few(photos, tmp_path) -> Path:
    """Class folders of CIFAR-10 photos: of each of four classes 20 to learn from, 10 to test on."""
    for split, count in (("train", 20), ("test", 10)):
        for source in sorted((photos / "cifar10" / split).iterdir())[:4]:
            folder = tmp_path / "few" / split / source.name
            folder.mkdir(parents=True)
            for file in sorted(source.iterdir())[:count]:
                shutil.copy(file, folder)
    return tmp_path / "few"


def evaluate(capsys, run: Path, folder: Path, *arguments: str) -> tuple[dict, Path]:
    """Returns a protocol's result on the photos of a folder, and where it was written."""
    images = ("--set", "data.source=folder", "--set", f"data.root={folder}")
    out = folder.parent / "out"
    words = [*arguments, "--run", str(run), *images, "--out", str(out)]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["train_images"], result["test_images"], result["classes"]) == (80, 40, 4)
    return result, out


@pytest.mark.long
def test_transfer_fits_a_logistic_regression_for_each_penalty(run, few, capsys):
    result, _ = evaluate(capsys, run, few, "transfer")
    assert len(result["held_out_accuracy"]) == 45
    assert 0.25 < result["top1"] <= 1.0
    assert result["mean_per_class"] == pytest.approx(result["top1"])  # ten of each class


@pytest.mark.long
def test_semi_supervised_chooses_rate_and_epochs(run, few, capsys):
    result, out = evaluate(capsys, run, few, "semi-supervised", "--fraction", "0.5", "--seeds", "1")
    assert set(result["held_out_accuracy"]) == {"0.005", "0.01", "0.02", "0.05", "0.1"}
    assert result["epochs"] in (30, 50)
    assert (result["labels"], result["batch_size"]) == (40, 40)
    assert "curve" not in result
    with (out / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, result["epochs"] + 1))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


@pytest.mark.parametrize(
    "protocol", ["finetune", pytest.param("supervised", marks=pytest.mark.long)]
)
def test_preset_stl10_takes_the_authors_rate(run, few, capsys, protocol):
    arguments = (protocol, "--preset", "stl10", "--seeds", "1", "--epochs", "3")
    result, _ = evaluate(capsys, run, few, *arguments)
    assert (result["rate"], result["held_out_accuracy"]) == (8e-4, {})
    assert (result["epochs"], result["batch_size"]) == (3, 80)
