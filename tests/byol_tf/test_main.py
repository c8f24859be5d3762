"""The command `byol`: help, unknown names, Ctrl-C while a command is imported; real processes."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from byol_tf import __version__
from byol_tf.__main__ import COMMANDS
from tests.helpers.handlers import reset_handlers
from tests.helpers.waiting import HANG

ROOT = Path(__file__).parents[2]


def byol(*words: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs `python -m byol_tf` with arguments."""
    return subprocess.run(
        [sys.executable, "-m", "byol_tf", *words],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


def test_help_has_a_line_for_each_command_and_imports_none():
    done = byol("--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name:<10} {summary}\n" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"argparse", "numpy", "pydantic", "rich", "tensorflow"}


def test_version_is_printed():
    assert byol("--version").stdout == f"byol_tf {__version__}\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["trian"], "byol: trian: unknown command; did you mean train?\n"),
        (["--config", "x"], "byol: --config: unknown command; expected one of train, evaluate, "),
        ([], "byol: expected a command: train, evaluate, "),
    ],
)
def test_unknown_command_is_exit_code_2_and_a_hint(words, text):
    done = byol(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(text) and done.stderr.count("\n") == 1


@pytest.mark.parametrize("line", ["-m byol_tf compare", "-m byol_tf.compare"])
def test_interrupt_during_the_imports_of_a_command_is_one_line(line, tmp_path):
    """The import of pydantic, which every command needs, waits here for the signal."""
    (tmp_path / "pydantic.py").write_text(
        "import time; print('importing', flush=True)\ntime.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, *shlex.split(line), "x"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=reset_handlers,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=HANG)
    assert (process.returncode, error) == (130, "\nstopped by SIGINT\n")
