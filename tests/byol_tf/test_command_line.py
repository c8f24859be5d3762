"""How every command ends: its output, signals, errors and hints; in real processes."""

import argparse
import importlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from byol_tf import __version__
from byol_tf.__main__ import COMMANDS
from byol_tf.command_line import (
    PARENT_VARIABLE,
    STOP_SIGNALS,
    add_json_option,
    check_writable,
    ends_with_exit_code,
    hint_at_options,
    positive_int,
    print_json,
)
from byol_tf.errors import ConfigError, OutputError, WorkKept
from tests.helpers.handlers import reset_handlers
from tests.helpers.waiting import HANG, wait_until

ROOT = Path(__file__).parents[2]
HISTORY = ROOT / "docs" / "results" / "cifar10" / "baseline.csv"
WAITING = """
import sys, time
from byol_tf.command_line import ends_with_exit_code, run_command

@ends_with_exit_code
def main(arguments):
    try:
        print("begun")
        time.sleep(600)
    except KeyboardInterrupt as error:
        {response}

run_command(main)
"""


def start(code: str, **environment: str) -> subprocess.Popen:
    """Starts a command of Python code; its output is in pipes, and its first line was read."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=reset_handlers,
    )
    assert process.stdout.readline() == "begun\n"
    return process


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs a line of Bash in a folder; `byol NAME` is a command."""
    function = f'byol() {{ {shlex.quote(sys.executable)} -m byol_tf "$@"; }}; set -o pipefail; '
    return subprocess.run(
        ["bash", "-c", function + line],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


@pytest.mark.parametrize("module", [module for module, _ in COMMANDS.values()])
def test_every_command_has_a_version(module, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"byol_tf {__version__}\n")


@pytest.mark.parametrize("module", [module for module, _ in COMMANDS.values()])
def test_every_command_refuses_nul_characters(module, capsys):
    assert importlib.import_module(module).main(["--out", "a\0b"]) == 2
    message = "'a\\x00b': expected an argument without NUL characters\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("tau: wrong"), 2, "tau: wrong\n"),
        (OSError(28, "No space left on device", "/a/b"), 2, "/a/b: No space left on device\n"),
        (OSError("no answer"), 2, "no answer\n"),
        (
            MemoryError("Unable to allocate 4 EiB"),
            12,
            "out of memory, of this machine or its device: Unable to allocate 4 EiB\n",
        ),
        (KeyboardInterrupt(), 130, "\nstopped by SIGINT\n"),
        (WorkKept("3 seeds are kept"), 130, "\nstopped by SIGINT; 3 seeds are kept\n"),
    ],
)
def test_expected_error_is_an_exit_code_and_one_line(error, code, text, capsys):
    @ends_with_exit_code
    def main(arguments: list[str]) -> int:
        raise error

    assert main([]) == code
    assert capsys.readouterr().err == text


def test_unexpected_error_is_raised():
    @ends_with_exit_code
    def main(arguments: list[str]) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main([])


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_ends_a_command_with_one_line(number):
    process = start(WAITING.format(response="raise"))
    process.send_signal(number)
    _, error = process.communicate(timeout=HANG)
    assert (process.returncode, error.split()) == (
        128 + number,
        ["stopped", "by", signal.Signals(number).name],
    )


def test_error_that_a_library_makes_of_a_signal_is_no_traceback():
    process = start(WAITING.format(response="raise ImportError('no module') from error"))
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=HANG)
    assert (process.returncode, error) == (143, "\nstopped by SIGTERM\n")


def test_second_signal_ends_a_command_at_once():
    process = start(WAITING.format(response="print('storing'); time.sleep(600)"))
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "storing\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=HANG)
    assert process.returncode == 130


def test_command_stops_with_the_process_that_started_it():
    """A study that is killed leaves no training behind."""
    words = [sys.executable, "-c", CHILD_OF_A_PARENT]
    parent = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert parent.stdout.readline() == "begun\n"
    parent.kill()
    parent.communicate()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid))


CHILD_OF_A_PARENT = f"""
import os, subprocess, sys, time
code = {WAITING.format(response="raise")!r}
child = subprocess.Popen(
    [sys.executable, "-c", code], env=os.environ | {{{PARENT_VARIABLE!r}: str(os.getpid())}},
    start_new_session=True, stderr=subprocess.DEVNULL,
)
print(child.pid, flush=True)
time.sleep(600)
"""


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked for its exit code."""
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


@pytest.mark.parametrize(
    "line",
    [
        "byol study | head -1",
        "byol study > /dev/full",
        "byol study >&-",
        "byol train --explain views | true",
        "byol train --explain views > /dev/full 2>&1",
        "byol train --explain views >&- 2>&-",
        f"byol compare {HISTORY} | true",
        f"byol compare {HISTORY} > /dev/full",
        f"byol compare 'ü$_={HISTORY}' >&-",
    ],
)
def test_output_that_nobody_takes_fails_no_command(line, tmp_path):
    done = shell(line, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    if "compare" in line:
        assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".md", ".png"]


def test_terminal_that_is_not_utf_8_shows_escapes(tmp_path):
    done = shell(f"byol compare 'fotos ü={HISTORY}'", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"fotos \xfc" in done.stdout
    assert "fotos ü" in (tmp_path / "comparison.md").read_text(encoding="utf-8")


def test_output_folder_is_tried_and_stays_unmade(tmp_path):
    check_writable(tmp_path / "a" / "b", "--out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"^--out .*/file/a: can't be written: Not a directory$"):
        check_writable(tmp_path / "file" / "a", "--out")
    with pytest.raises(OutputError, match="File name too long"):
        check_writable(tmp_path / ("x" * 300), "--out")
    with pytest.raises(OutputError, match=r"^--out .*: its name isn't UTF-8"):
        check_writable(tmp_path / os.fsdecode(b"l\xe4uf"), "--out")
    with pytest.raises(OutputError, match=r"^--out ~nobody/a: expected a path without ~"):
        check_writable(Path("~nobody/a"), "--out")


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1000000000", "9" * 5000])
def test_whole_number_has_nine_digits_at_most(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number of 1 or more"):
        positive_int(text)
    assert positive_int("999999999") == 999_999_999


@pytest.mark.parametrize(
    ("unknown", "hint"),
    [
        (["--epochs", "5"], "; did you mean --set training.epochs=5?"),
        (["--training.epochs=5"], "; did you mean --set training.epochs=5?"),
        (["--batch-size"], "; did you mean --set training.batch_size=VALUE?"),
        (["tiny.json"], "; did you mean --config tiny.json?"),
        (["stl10", "seed=3"], "; did you mean --config stl10 or --set seed=3?"),
        (["--colour", "blue"], ""),
    ],
)
def test_unknown_arguments_are_recognised(unknown, hint):
    keys = ["seed", "training.epochs", "training.batch_size"]
    assert hint_at_options(unknown, keys, ["stl10"]) == hint


def test_training_hints_at_set_and_lists_the_recipes(tmp_path):
    done = shell("byol train --epochs 5", tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("did you mean --set training.epochs=5?\n")
    assert "few-photos-byol, imagenet-100" in shell("byol train --help", tmp_path).stdout


@pytest.mark.parametrize(
    "line",
    ["byol train --config photos", "byol study simsiam-b --root studies --set data.root=photos"],
)
def test_missing_photos_are_reported_before_tensorflow_is_imported(line, tmp_path):
    done = shell(line, tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 2
    assert f"data.root: there is no folder {tmp_path / 'photos'}" in done.stderr
    assert "| tensorflow" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_tilde_is_the_home_folder_in_every_path(tmp_path):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    (home / "run.csv").write_bytes(HISTORY.read_bytes())
    done = shell("byol compare x='~/run.csv' --out='~/c/x.png'", here, HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert (home / "c" / "x.png").exists() and not list(here.iterdir())


@pytest.mark.parametrize(
    ("terminal", "asked", "printed"),
    [(False, False, True), (True, False, False), (True, True, True)],
)
def test_result_is_a_line_of_json_where_no_person_reads_it(
    terminal, asked, printed, capsys, monkeypatch
):
    parser = argparse.ArgumentParser()
    add_json_option(parser)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    print_json({"top1": 0.5}, parser.parse_args(["--json"] * asked))
    assert capsys.readouterr().out == ('{"top1": 0.5}\n' if printed else "")
