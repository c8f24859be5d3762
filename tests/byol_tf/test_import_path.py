"""Tests of the check for another package named `pipelines` in the current folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.waiting import HANG

ROOT = Path(__file__).parents[2]


def run_python(folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


@pytest.mark.parametrize("name", ["pipelines/__init__.py", "pipelines.py"])
def test_other_pipelines_package_is_refused_before_its_import(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('it was imported')")
    expected_path = tmp_path / name.removesuffix("/__init__.py")
    line = (
        f"{expected_path}: expected byol_tf's own pipelines, {ROOT / 'pipelines'}, to be found first; "
        "rename that one, or run this elsewhere"
    )
    command = run_python(tmp_path, "-m", "byol_tf.train", "--explain", "tau")
    assert (command.returncode, command.stdout, command.stderr) == (2, "", f"{line}\n")
    program = run_python(tmp_path, "-c", "import byol_tf")
    assert (program.returncode, program.stderr.splitlines()[-1]) == (1, f"ImportError: {line}")


def test_folder_named_pipelines_is_ignored(tmp_path):
    (tmp_path / "pipelines").mkdir()
    command = run_python(tmp_path, "-m", "byol_tf.train", "--explain", "tau")
    assert command.returncode == 0, command.stderr
    assert "tau.base" in command.stdout
