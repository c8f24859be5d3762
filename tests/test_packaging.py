"""What is installed from a wheel, and from the sdist: all of the packages, the configs, the
commands."""

import ast
import configparser
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from byol_tf.__main__ import COMMANDS
from byol_tf.export.formats import FORMATS
from tests.helpers import torch_resnet

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("byol_tf", "pipelines", "configs")
BUILD = "from setuptools import build_meta; build_meta.build_{}({!r})"


def build(kind: str, tree: Path, folder: Path) -> Path:
    """The `wheel` or `sdist` of a source tree, made in a folder by the backend that pyproject.toml
    names."""
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-c", BUILD.format(kind, str(folder))],
        cwd=tree,
        check=True,
        capture_output=True,
    )
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
    files = [
        file
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    ]
    assert installed == {file.relative_to(ROOT).as_posix() for file in files}


def test_each_command_of_the_wheel_exists(wheel):
    with zipfile.ZipFile(wheel) as archive:
        entries = configparser.ConfigParser()
        entries.read_string(
            archive.read(
                next(name for name in archive.namelist() if name.endswith("/entry_points.txt"))
            ).decode()
        )
    assert dict(entries["console_scripts"]) == {"byol": "byol_tf.__main__:command"}
    for module, _ in COMMANDS.values():
        assert callable(importlib.import_module(module).main)


def test_requirements_txt_is_setup_cfgs_own_for_a_cpu():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = "\n".join(
        [setup["options"]["install_requires"], setup["options.extras_require"]["cpu"]]
    )
    listed = (ROOT / "requirements.txt").read_text()
    ours, theirs = (
        sorted(filter(None, (line.partition("#")[0].strip() for line in text.splitlines())))
        for text in (listed, wanted)
    )
    assert ours == theirs


def test_every_imported_package_is_declared():
    """One that only comes with another may go when that one does."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = "\n".join(
        [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    ).splitlines()
    declared = {_normalized(re.match(r"[\w.-]*", line.strip())[0]) for line in lines}
    distributions = importlib.metadata.packages_distributions()
    for file in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in {name.partition(".")[0] for name in names}:
                if name not in {*sys.stdlib_module_names, *PACKAGES}:
                    owners = distributions.get(name, [name])
                    assert declared & set(map(_normalized, owners)), (file, name)


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Elsewhere:
    """An environment of its own, and an empty folder that isn't the checkout."""

    def __init__(self, root: Path, wheel: Path):
        self.folder, self.wheel, self._programs = root / "folder", wheel, root / "venv" / "bin"
        self.folder.mkdir()
        venv.create(root / "venv", with_pip=True)

    def install(self, extras: str = "") -> None:
        self.run(
            "pip", "install", "--quiet", "--disable-pip-version-check", f"{self.wheel}{extras}"
        )

    def run(self, *words: str, code: int = 0) -> str:
        """What a command prints, once it has ended with that code."""
        home = {"PATH": f"{self._programs}:/usr/bin:/bin", "HOME": str(self.folder)}
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=home,
            capture_output=True,
            text=True,
            timeout=1_200,
            check=False,
        )
        assert done.returncode == code, (words, done.stdout[-2_000:], done.stderr[-4_000:])
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory) -> Elsewhere:
    return Elsewhere(tmp_path_factory.mktemp("elsewhere"), wheel)


@pytest.mark.long
def test_from_the_wheel_in_an_empty_environment(elsewhere):
    """Everything that a user does with it, outside of the checkout: train, judge, export to all
    formats, search, convert, compare."""
    run = elsewhere.run
    elsewhere.install()
    assert f'pip install "{elsewhere.wheel}[cpu]"' in run("byol", "train", code=2)
    assert "stl10-table2" in run("byol", "study", "--list")
    elsewhere.install("[cpu]")
    assert "byol train works here" in run("byol", "doctor")
    run(
        "byol",
        "train",
        "--run-dir",
        "run",
        "--set",
        "training.epochs=3",
        "--set",
        "data.pretrain_images=2048",
    )
    assert "pip install" in run("byol", "export", "--run", "run", "--format", "onnx", code=2)
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(value) for name, value in torch_resnet.state_dict().items()},
        elsewhere.folder / "resnet.safetensors",
    )
    convert = ("byol", "convert", "pytorch", "resnet.safetensors", "--out", "converted")
    assert "pip install safetensors" in run(*convert, code=2)
    elsewhere.install("[cpu,export,convert]")
    run("byol", "export", "--run", "run", "--format", "all")
    weights = {f"encoder-{kind}.tflite" for kind in ("float32", "float16", "int8")}
    written = set(os.listdir(elsewhere.folder / "run" / "export"))
    assert (
        weights
        | {"encoder", "encoder.keras", "encoder.onnx", "USAGE.md", "README.md", "verification.json"}
        <= written
    )
    assert "resnet18" in run(*convert)
    run("byol", "evaluate", "knn", "--run", "run")
    (elsewhere.folder / "pictures").mkdir()
    for number in range(12):
        Image.effect_noise((40 + number, 48), 20 * number).save(
            elsewhere.folder / "pictures" / f"{number}.png"
        )
    for encoder in ("run", "converted"):
        run(
            "byol",
            "embed",
            "--encoder",
            encoder,
            "--images",
            "pictures",
            "--out",
            f"embedded-{encoder}",
        )
    run("byol", "report", "--run", "run")
    shutil.copytree(elsewhere.folder / "run", elsewhere.folder / "again")
    run("byol", "compare", "run", "again", "converted", "--out", "compared")
    assert "byol_tf" not in os.listdir(elsewhere.folder)


@pytest.mark.long
def test_from_the_wheel_photos_keep_their_neighbours_in_every_format(elsewhere, photos):
    """`-s` prints which share of 300 photos has, among 100, the same nearest neighbour as by the
    run's own encoder."""
    elsewhere.install("[cpu,export]")
    settings = [
        f"data.root={photos / 'imagenette_stl10like' / 'unlabeled'}",
        "data.pretrain_images=640",
        "training.epochs=1",
    ]
    settings += ["optimizer.warmup_epochs=0"]
    options = [part for setting in settings for part in ("--set", setting)]
    elsewhere.run("byol", "train", "--config", "few-photos", "--run-dir", "of-photos", *options)
    printed = elsewhere.run("byol", "export", "--run", "of-photos", "--format", "all")
    assert "300 images of folder" in printed
    export = elsewhere.folder / "of-photos" / "export"
    verifications = json.loads((export / "verification.json").read_text())
    assert list(verifications) == [each.title for each in FORMATS]
    for each in FORMATS:
        measured = verifications[each.title]
        print(
            f"{each.title}: {measured['same_neighbour']:.1%} of {measured['images']}",
            measured["int8"] or "",
        )
        assert measured["images"] == 300
        assert measured["same_neighbour"] >= each.tolerance.same_neighbour
    assert (
        f"LiteRT, int8 ({verifications['LiteRT, int8']['int8']})"
        in (export / "USAGE.md").read_text()
    )
