"""The Dockerfile copies what an installation needs, and starts a command that an installation has."""

import configparser
import json
import re
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.helpers.waiting import HANG

LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
STEPS = [line.split(maxsplit=1) for line in LINES if line and not line.startswith("#")]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def step(name: str) -> str:
    """The arguments of the only step of a kind."""
    (found,) = (rest for kind, rest in STEPS if kind == name)
    return found


def test_the_python_of_the_image_and_its_extra_are_ours():
    tag = re.fullmatch(r"python:(\d\.\d+)-slim", step("FROM"))[1]
    lowest, highest = re.findall(r"\d+\.(\d+)", SETUP["options"]["python_requires"])
    assert int(lowest) <= int(tag.partition(".")[2]) < int(highest)
    assert step("ARG").partition("=")[2] in SETUP["options.extras_require"]
    assert 'pip install --no-cache-dir "/src[${EXTRA}]"' in step("RUN")


def test_the_entry_point_is_a_script_of_the_installation():
    (entry,) = json.loads(step("ENTRYPOINT"))
    assert f"{entry} = " in SETUP["options.entry_points"]["console_scripts"]


@pytest.mark.long  # fetches what builds a wheel
def test_what_is_left_of_the_clone_builds_a_wheel_with_all_packages(tmp_path):
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in tracked:
        if not any(fnmatch(name.split("/")[0], pattern) for pattern in ignored):
            target = tmp_path / "src" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "-q",
        "-w",
        tmp_path,
        tmp_path / "src",
    ]
    subprocess.run(command, check=True, timeout=HANG)
    (wheel,) = Path(tmp_path).glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "byol_tf/__main__.py" in names and "configs/demo.json" in names
    assert "pipelines/batches.py" in names
