"""What native code writes to stderr, in real processes that need no TensorFlow for it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.handlers import reset_handlers
from tests.helpers.waiting import HANG, wait_until

ROOT = Path(__file__).parents[2]
COMMAND = """
import os, pathlib, signal, subprocess, sys
from byol_tf import native_output
from byol_tf.command_line import ends_with_exit_code, run_command
from byol_tf.runs.files import append_to

def move(folder):
    native_output.move_native_log(pathlib.Path(folder), append_to)

@ends_with_exit_code
def main(arguments):
    native_output.redirect_native_output()
    os.write(2, b"I0000 port.cc] oneDNN custom operations are on\\n")
    print("to the user", file=sys.stderr)
    native_output.write_to_terminal("at once\\n")
    {code}
    return 0

run_command(main)
"""


def run(code: str, temporary: Path) -> subprocess.CompletedProcess:
    """Runs a command that writes like TensorFlow and then does what the code says.

    Returns once the process that waits for its end has ended too: it holds the same pipes.
    """
    return subprocess.run(
        [sys.executable, "-c", COMMAND.format(code=code)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


@pytest.mark.parametrize(
    ("code", "exit_code"), [("pass", 0), ("os._exit(75)", 75), ("os.kill(os.getpid(), 9)", -9)]
)
def test_native_lines_stay_off_the_terminal_and_leave_no_file(code, exit_code, tmp_path):
    done = run(code, tmp_path)
    assert (done.returncode, done.stderr) == (exit_code, "to the user\nat once\n")
    assert not list(tmp_path.iterdir())


def test_a_run_folder_keeps_the_log_of_each_process(tmp_path):
    logs, temporary = tmp_path / "run" / "logs", tmp_path / "temporary"
    temporary.mkdir()
    for _ in range(2):
        code = f"move({str(logs)!r}); os.write(2, b'later\\n')"
        assert run(code, temporary).stderr == "to the user\nat once\n"
    line = "I0000 port.cc] oneDNN custom operations are on\nlater\n"
    assert (logs / "tensorflow.log").read_text() == 2 * line
    assert not list(temporary.iterdir())


def test_log_is_not_appended_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "tensorflow.log").symlink_to("mine")
    assert run(f"move({str(tmp_path)!r})", tmp_path).returncode == 0
    assert (tmp_path / "mine").read_text() == "mine"


def test_unexpected_error_names_the_log(tmp_path):
    done = run("raise ZeroDivisionError", tmp_path)
    (log,) = tmp_path.iterdir()
    assert done.returncode == 1
    assert done.stderr.endswith(f"ZeroDivisionError\nTensorFlow's own messages: {log}\n")
    assert "oneDNN" in log.read_text()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.write(2, b'F0000 Check failed: 1 == 2\\n'); os.abort()", "Aborted"),
        ("import ctypes; ctypes.string_at(0)", "Segmentation fault"),
    ],
)
@pytest.mark.parametrize("in_run", [False, True])
def test_crash_shows_its_reason_and_where_python_was(code, reason, in_run, tmp_path):
    if in_run:
        code = f"move({str(tmp_path / 'logs')!r}); {code}"
    done = run(code, tmp_path)
    assert done.returncode < 0
    assert f"Fatal Python error: {reason}\n" in done.stderr
    assert re.search(r"line \d+ in main\n", done.stderr)
    assert "oneDNN" not in done.stderr and "Extension modules" not in done.stderr
    if "F0000" in code:
        assert "F0000 Check failed: 1 == 2\n" in done.stderr
    (log,) = (path for path in tmp_path.rglob("*.log"))
    assert done.stderr.endswith(f"the process crashed; TensorFlow's own messages: {log}\n")
    assert "oneDNN" in log.read_text()


def test_ctrl_c_on_the_process_group_shows_nothing_more(tmp_path):
    code = "os.killpg(0, signal.SIGINT); import time; time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(code=code)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=reset_handlers,
    )
    _, error = process.communicate(timeout=HANG)
    assert (process.returncode, error) == (130, "to the user\nat once\n\nstopped by SIGINT\n")
    wait_until(lambda: not list(tmp_path.iterdir()))
