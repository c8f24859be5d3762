"""Short runs of the real command, and a digest of what two equal runs share."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from byol_tf.runs.checkpoints import read_newest
from tests.helpers.waiting import HANG

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS = 6, 4
CONFIG = {
    "name": "short",
    "data": {"source": "textures", "pretrain_images": 16 * STEPS + 3},
    "views": {"size": 32, "engine": "fused"},
    "encoder": {"name": "convnet", "width": 0.25},
    "projector": {"hidden_size": 32, "output_size": 16},
    "predictor": {"hidden_size": 32},
    "tau": {"base": 0.99},
    "optimizer": {"base_learning_rate": 0.002, "reference_batch_size": None},
    "training": {"epochs": EPOCHS, "batch_size": 16, "deterministic": True},
    "devices": {"strategy": "cpu"},
    "probe": {"train_images": 50, "test_images": 50, "neighbours": 5},
    "run": {"keep_checkpoints": 4, "report": False},
}


def start(run: Path, *more: str) -> subprocess.Popen:
    """Starts a run in a folder; its config is written next to that."""
    config = run.with_suffix(".json")
    config.write_text(json.dumps(CONFIG))
    line = [
        sys.executable,
        "-m",
        "byol_tf.train",
        "--config",
        str(config),
        "--run-dir",
        str(run),
        *more,
    ]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}  # a line can be waited for
    return subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    """Returns stdout and stderr of a process that must exit with a code."""
    printed, errors = process.communicate(timeout=HANG)
    assert process.returncode == code, errors
    return printed, errors


def digest(run: Path) -> str:
    """Returns the SHA-256 of every variable, the position and the history without its speeds."""
    checkpoint, damaged = read_newest(run / "checkpoints")
    assert damaged == []
    total = hashlib.sha256(repr((checkpoint.epoch, checkpoint.step)).encode())
    for name, array in sorted(checkpoint.arrays.items()):
        total.update(name.encode() + array.tobytes())
    with (run / "history.csv").open() as file:
        for row in csv.DictReader(file):
            row.pop("images_per_second")
            row.pop("data_wait")
            total.update(repr(row).encode())
    return total.hexdigest()
