"""The example runs as it is, on less data."""

import re
import runpy
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "byol_minimal.py"


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
