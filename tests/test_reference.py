"""The table of `python -m tests.reference`: every formula against NumPy, all below its limit."""

import os
import subprocess
import sys

from tests.helpers.waiting import HANG
from tests.reference.__main__ import LIMIT, error


def test_every_formula_is_in_the_table_and_below_the_limit():
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    line = [sys.executable, "-m", "tests.reference"]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=HANG, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("|")[1:4] for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 24
    assert all(float(row[2]) < LIMIT for row in rows)
    for formula in (
        "cosine, symmetrised",
        "two draws",
        "2 replicas",
        "tau: drop",
        "LARS",
        "average",
        "group",
        "standardisation",
        "data_init",
    ):
        assert any(formula in row[0] for row in rows), formula


def test_the_error_is_relative_to_the_largest_value():
    assert error([1.0, 3.0], [1.0, 4.0]) == 0.25
    assert error([[1.0, 3.0]], [[2.0, 4.0]]) == 0.25
