"""Code that a test runs in a process of its own, such as one with two logical CPUs."""

import json
import os
import subprocess
import sys
from typing import Any

from tests.helpers.waiting import HANG


def run_code(code: str) -> Any:
    """Runs Python code in a new process without GPUs; returns the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=HANG,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
