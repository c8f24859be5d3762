"""The check of the machine: what it finds missing, and the line that it names for it."""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from byol_tf import doctor
from byol_tf.doctor import (
    Check,
    check_extras,
    check_packages,
    check_workers,
    explain_unseen_gpu,
    main,
)
from pipelines.extras import install_line
from tests.helpers.waiting import HANG

ROOT = Path(__file__).parents[2]
COMPLETE = {"": [], "cpu": [], "gpu": ["nvidia-cudnn-cu12"], "tpu": ["x"], "export": [], "test": []}


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(doctor, "nvidia_card", lambda: False)


@pytest.fixture
def fast(monkeypatch, no_card):
    """Leaves out what needs TensorFlow."""
    monkeypatch.setattr(doctor, "_tensorflow_checks", lambda: iter([Check("devices", "CPU")]))
    monkeypatch.setattr(doctor, "requirements_by_extra", lambda: COMPLETE)


def test_machine_that_works_is_exit_code_0_and_a_sentence(fast, capsys):
    assert main([]) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("\npython -m byol_tf.train works here\n") and not printed.err
    names = [line[2:16].strip() for line in printed.out.splitlines()[:-2]]
    assert [name for name in names if name][:5] == ["byol_tf", "packages", "CPU", "memory", "disk"]


def test_json_has_every_check_and_nothing_else(fast, capsys):
    assert main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["works"] is True
    assert found["checks"][-1] == {"name": "devices", "text": "CPU", "problem": "", "hint": ""}


def test_full_disk_is_exit_code_2_and_a_sentence(fast, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(1e9, 1e9, 1e6))
    assert main([]) == 2
    printed = capsys.readouterr()
    assert "-> choose another: --set run.root=DIR\n" in printed.out
    assert printed.err == "the disk is full\n"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"": ["scipy>=1.13"]}, "packages are missing or of another version: scipy>=1.13"),
        (
            {"cpu": ["tensorflow<2.22,>=2.19 (now 2.16.1)"]},
            "TensorFlow has another version than byol_tf needs: tensorflow<2.22,>=2.19 (now "
            "2.16.1)",
        ),
    ],
)
def test_packages_are_compared_with_the_requirements(changes, problem, no_card):
    check = check_packages(COMPLETE | changes)
    assert check.problem == problem
    assert check.hint == (install_line("cpu") if problem else "")


def test_missing_tensorflow_is_named_for_the_device(monkeypatch):
    monkeypatch.setattr(doctor, "nvidia_card", lambda: True)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    check = check_packages(COMPLETE)
    assert (check.problem, check.hint) == (
        "TensorFlow isn't installed",
        install_line("gpu"),
    )


def test_extras_are_listed_with_the_line_that_installs_them():
    check = check_extras(
        COMPLETE | {"heic": ["pillow-heif>=0.22"], "hub": ["x"], "test-sources": ["x"]}
    )
    assert check.text == "export installed, heic missing, hub missing"
    assert check.hint == f"if needed: {install_line('heic', 'hub')}"


def test_workers_that_the_environment_describes_are_named():
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    check = check_workers({"TF_CONFIG": json.dumps(cluster)})
    assert check == Check("workers", "2 of TF_CONFIG; this is number 2, b:1")
    check = check_workers({"SLURM_JOB_ID": "1"})
    assert (check.text, check.problem) == ("can't be read", "")
    assert "start the command with srun" in check.hint


class Installed:
    """A distribution with its requirements."""

    def __init__(self, version: str, *requires: str):
        self.version, self.requires = version, requires


def test_requirements_of_an_extra_include_those_of_its_packages_extras(monkeypatch):
    installed = {
        "tensorflow": Installed("2.20.0", "numpy", 'nvidia-cudnn>=9; extra == "and-cuda"'),
        "keras": Installed("3.9.0"),
    }

    def distribution(name: str) -> Installed:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError
        return installed[name]

    monkeypatch.setattr(doctor.importlib.metadata, "distribution", distribution)
    package = Installed(
        "0.1.0",
        "keras>=3.12",
        'tensorflow>=2.19; extra == "cpu"',
        'tensorflow[and-cuda]>=2.19; extra == "gpu"',
    )
    assert doctor._unmet(package, "") == ["keras>=3.12 (now 3.9.0)"]
    assert doctor._unmet(package, "cpu") == []
    assert doctor._unmet(package, "gpu") == ["nvidia-cudnn>=9"]


@pytest.mark.parametrize(
    ("cuda", "nvidia", "driver", "reason", "hint"),
    [
        (False, True, "560.1", "TensorFlow for CPUs is installed", install_line("gpu")),
        (True, False, "560.1", "TensorFlow for CPUs is installed", install_line("gpu")),
        (True, True, None, "its driver isn't loaded", "--gpus all"),
        (True, True, "470.82.01", "its driver is 470.82.01", "install version 525"),
        (True, True, "560.35.03", "its driver is 560.35.03", "TensorFlow's reason is in"),
    ],
)
def test_unseen_gpu_is_explained(cuda, nvidia, driver, reason, hint, monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: nvidia or None)
    monkeypatch.setattr(doctor, "_driver_version", lambda: driver)
    found, advice = explain_unseen_gpu(cuda)
    assert found == reason and hint in advice


def test_bfloat16_of_the_cpu_is_named(monkeypatch):
    for name, text in ((None, "no fast bfloat16"), ("amx_bf16", "bfloat16 (amx_bf16)")):
        monkeypatch.setattr(doctor, "cpu_bfloat16", lambda name=name: name)
        check = next(doctor._machine_checks())
        assert check.name == "CPU" and check.text.endswith(text)


def test_broken_tensorflow_is_reinstalled_within_our_bounds(monkeypatch):
    package = Installed("0.1.0", "keras>=3.12", 'tensorflow[and-cuda]<2.23,>=2.19; extra == "gpu"')
    monkeypatch.setattr(doctor.importlib.metadata, "distribution", lambda name: package)
    line = 'pip install --force-reinstall "tensorflow[and-cuda]<2.23,>=2.19"'
    assert doctor._reinstall_line("gpu") == line


@pytest.mark.long
def test_doctor_compiles_a_step_in_a_real_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "byol_tf", "doctor", "--json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    checks = {check["name"]: check["text"] for check in json.loads(done.stdout)["checks"]}
    assert "images/s" in checks["training step"]
    assert not list(tmp_path.iterdir())
