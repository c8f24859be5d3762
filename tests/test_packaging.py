"""What is installed from a wheel, and from the sdist: all of the packages, the configs, the commands."""

import configparser
import importlib
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("byol_tf", "pipelines", "configs")
BUILD = "from setuptools import build_meta; build_meta.build_{}({!r})"


def build(kind: str, tree: Path, folder: Path) -> Path:
    """The `wheel` or `sdist` of a source tree, made in a folder by the backend that pyproject.toml names."""
    folder.mkdir()
    subprocess.run([sys.executable, "-c", BUILD.format(kind, str(folder))], cwd=tree, check=True, capture_output=True)
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """From a copy: what building leaves would be taken up by the next build."""
    copy = tmp_path_factory.mktemp("source")
    for name in (*PACKAGES, "tests"):
        for file in (ROOT / name).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                (copy / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                (copy / file.relative_to(ROOT)).write_bytes(file.read_bytes())
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    return build("sdist", copy, copy.parent / "sdist")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """Of what the sdist holds, as pip makes it where no wheel fits."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", next(folder.iterdir()), folder / "wheel")


def test_the_wheel_of_the_sdist_holds_every_module_and_config_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        installed = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert installed == {file.relative_to(ROOT).as_posix() for file in files}


def test_each_command_of_the_wheel_exists(wheel):
    with zipfile.ZipFile(wheel) as archive:
        entries = configparser.ConfigParser()
        entries.read_string(archive.read(next(name for name in archive.namelist() if name.endswith("/entry_points.txt"))).decode())
    commands = dict(entries["console_scripts"])
    assert set(commands) >= {f"byol-{name}" for name in ("train", "evaluate", "study", "export", "embed", "report", "compare", "convert")}
    for place in commands.values():
        module, function = place.split(":")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.long
def test_from_the_wheel_in_an_empty_environment(wheel, photos, tmp_path):
    """Everything that a user does with it, outside of the checkout: train, judge, export to all formats, search, compare."""
    venv.create(tmp_path / "venv", with_pip=True)
    home = {"PATH": f"{tmp_path / 'venv' / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}

    def say(*words: str, code: int = 0) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=home, capture_output=True, text=True, timeout=1_200)
        assert done.returncode == code, (words, done.stdout[-2_000:], done.stderr[-4_000:])
        return done.stdout + done.stderr

    say("pip", "install", "--quiet", f"{wheel}[cpu]")
    say("byol-train", "--run-dir", "run", "--set", "training.epochs=3", "--set", "data.pretrain_images=2048")
    assert "pip install" in say("byol-export", "--run", "run", "--format", "onnx", code=2)
    say("pip", "install", "--quiet", f"{wheel}[cpu,export]")
    say("byol-export", "--run", "run", "--format", "all")
    weights = {f"encoder-{kind}.tflite" for kind in ("float32", "float16", "int8")}
    assert weights | {"encoder", "encoder.keras", "encoder.onnx", "USAGE.md", "README.md"} <= set(os.listdir(tmp_path / "run" / "export"))
    say("byol-evaluate", "knn", "--run", "run")
    say("byol-embed", "--encoder", "run", "--images", str(photos / "imagenette_stl10like" / "test"), "--out", "embedded")
    say("byol-report", "--run", "run")
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    say("byol-compare", "run", "again", "--out", "compared")
    assert "stl10-table2" in say("byol-study", "--list")
    assert "byol_tf" not in {path.name for path in tmp_path.iterdir()}
