"""Log lines of the commands, and output on a device that is always full."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from byol_tf import logs
from byol_tf.logs import ProgressLog, activity, configure_logging, counted, wrapped

ROOT = Path(__file__).parents[2]
MANY_LINES = "\nfor _ in range(100):\n    print('x' * 1000, flush=True)"
EXIT_3 = "\nsys.exit(3)"
IGNORE = "import sys\nfrom byol_tf.logs import ignore_output_errors\nignore_output_errors()"
LOG_LINES = (
    "import logging, sys\nfrom byol_tf.logs import configure_logging\nconfigure_logging()\n"
    "for _ in range(100):\n    logging.getLogger('byol_tf.train').info('x' * 1000)"
)
# At its own end Python exits with 120 where it can't flush its streams.
EXITS_AT_ONCE = "\nimport os\nos._exit(3)"


def test_records_are_printed_as_plain_lines(capsys):
    configure_logging()
    configure_logging()
    logging.getLogger("byol_tf.train.experiment").info("resuming after epoch %d", 3)
    logging.getLogger("pipelines.sources").warning("%s is missing", "a.png")
    logging.getLogger("byol_tf").debug("nobody sees this")
    logging.getLogger("another_package").error("nor this")
    assert capsys.readouterr().out == "resuming after epoch 3\nwarning: a.png is missing\n"


def test_handlers_of_dependencies_print_no_line_twice(capsys):
    stream = io.StringIO()
    root_handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(root_handler)
    try:
        configure_logging()
        logging.getLogger("byol_tf.train").info("once")
    finally:
        logging.getLogger().removeHandler(root_handler)
    assert (capsys.readouterr().out, stream.getvalue()) == ("once\n", "")


def test_level_warning_hides_info(capsys):
    configure_logging(logging.WARNING)
    logging.getLogger("byol_tf.train").info("hidden")
    logging.getLogger("byol_tf.train").warning("shown")
    assert capsys.readouterr().out == "warning: shown\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (IGNORE + MANY_LINES + EXIT_3, 3),
        ("import sys" + MANY_LINES + EXIT_3, 1),
        (LOG_LINES + EXITS_AT_ONCE, 3),
    ],
    ids=["tolerant", "plain", "logged"],
)
def test_full_disk_behind_the_output_ends_nothing(code, exit_code):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=full)
    assert done.returncode == exit_code


def test_tolerant_streams_pass_everything_on():
    code = IGNORE + MANY_LINES + "\nprint(sys.stdout.isatty(), sys.stdout.encoding)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    assert done.stdout == ("x" * 1000 + "\n") * 100 + f"False {sys.getdefaultencoding()}\n"


def test_stream_that_was_closed_takes_everything():
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$1" >&-', "bash", IGNORE + MANY_LINES + EXIT_3],
        cwd=ROOT,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (3, b"")


def test_progress_is_logged_where_work_takes_long(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    now = 100.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    progress = ProgressLog(logging.getLogger("byol_tf"))
    for done in range(1, 11):
        now += 2.0
        progress("loading folder", done, 10)
    assert caplog.messages == [
        "loading folder: 2 of 10 images, about 16 s left",
        "loading folder: 7 of 10 images, about 6 s left",
        "loading folder: 10 images",
    ]


def test_activity_is_a_line_at_its_start_outside_of_a_terminal(caplog):
    caplog.set_level(logging.INFO)
    with activity("writing", logging.getLogger("byol_tf")):
        assert caplog.messages == ["writing"]
    with activity("unnamed"):
        pass
    assert caplog.messages == ["writing"]


def test_activity_counts_seconds_of_its_text_in_a_terminal_and_leaves_nothing():
    code = (
        "import time\nfrom byol_tf import logs\nlogs.ignore_output_errors()\n"
        "with logs.activity('writing') as show: show('reading'); time.sleep(1.3)\nprint('done')"
    )
    master, terminal = os.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=terminal, env=os.environ | {"TERM": "xterm"}
    )
    os.close(terminal)
    written = os.read(master, 10_000).decode()
    os.close(master)
    assert done.returncode == 0
    assert written == "\r\x1b[Kwriting\r\x1b[Kreading  1 s\r\x1b[Kdone\r\n"


def test_one_is_singular():
    assert (counted(1, "epoch"), counted(1200, "epoch")) == ("1 epoch", "1,200 epochs")


def test_paragraph_has_lines_of_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    text = "the photos of holiday/2026-05-14-beach.jpg, in a long-drawn line"
    assert wrapped(text) == f"  {text}"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert wrapped(text, indent=4).splitlines() == [
        "  the photos of",
        "    holiday/2026-05-14-beach.jpg,",
        "    in a long-drawn line",
    ]
