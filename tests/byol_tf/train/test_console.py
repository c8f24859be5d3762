"""Printing to a device that is always full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CODE = (
    "import sys\nfrom byol_tf.train.console import ignore_output_errors\n{}\nfor _ in range(100):\n   "
    " print('x' * 1000, flush=True)\nsys.exit(3)"
)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(("protection", "code"), [("ignore_output_errors()", 3), ("", 1)])
def test_a_full_disk_behind_the_output_ends_nothing(protection, code):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", CODE.format(protection)], cwd=ROOT, stdout=full, stderr=full
        )
    assert done.returncode == code


def test_what_is_printed_arrives():
    code = CODE.format("ignore_output_errors()").replace(
        "sys.exit(3)", "print(sys.stdout.isatty(), sys.stdout.encoding)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    assert done.stdout == ("x" * 1000 + "\n") * 100 + f"False {sys.getdefaultencoding()}\n"
