"""Parser and ending of all commands.

A command ends with an exit code and at most one line on stderr: for what the user has to change,
for a disk that refuses, and for a signal. Its output can fail without ending it.
"""

import argparse
import contextlib
import functools
import json
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from byol_tf import __version__
from byol_tf.errors import (
    OUT_OF_MEMORY,
    USAGE_ERROR,
    OutputError,
    UserError,
    WorkKept,
    is_out_of_memory,
    memory_line,
    why_not_utf8,
)
from byol_tf.logs import configure_logging, ignore_output_errors
from byol_tf.native_output import name_native_log, separate_stderr
from pipelines.sources.base import SourceError

STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
"""The signals that ask a process to stop; Windows has no SIGHUP."""
PARENT_VARIABLE = "BYOL_TF_PARENT"
"""Environment variable with the id of the process with which a command shall stop."""
_PARENT_SECONDS = 1.0
_SET_DATA = "key of data, such as the new location of the images: data.root=photos"

Main = Callable[[list[str] | None], int]
"""The `main` of a command: from its arguments (None: those of the process) to its exit code."""


class _Parser(argparse.ArgumentParser):
    """A parser whose error on unknown arguments names the options that they may stand for."""

    keys: Sequence[str] = ()
    recipes: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        """Prints usage and message, and exits with 2."""
        unknown = message.partition("unrecognized arguments: ")[2].split()
        super().error(message + hint_at_options(unknown, self.keys, self.recipes))


def command_parser(
    name: str, keys: Sequence[str] = (), recipes: Sequence[str] = (), **options: Any
) -> argparse.ArgumentParser:
    """Returns a parser of a command's arguments, with `--version`.

    Args:
        name: of the command.
        keys: of the config that the command's `--set` changes.
        recipes: the packaged configs that its `--config` takes.
        **options: as of `argparse.ArgumentParser`.
    """
    parser = _Parser(prog=program(name), **options)
    parser.keys, parser.recipes = keys, recipes
    parser.add_argument("--version", action="version", version=f"byol_tf {__version__}")
    return parser


def ends_with_exit_code(main: Callable[[list[str]], int]) -> Main:
    """Decorates the `main` of a command, which then returns an exit code whatever happens.

    While it runs, no write to stdout or stderr fails, log records are printed, and the first
    SIGINT, SIGTERM or SIGHUP raises `KeyboardInterrupt` in it; a second one ends the process at
    once. An exception that isn't expected is raised as it is.

    Args:
        main: returns the exit code; raises one of the errors of `byol_tf.errors`, or `OSError`,
            for what the user has to change.
    """

    @functools.wraps(main)
    def wrapper(arguments: list[str] | None = None) -> int:
        words = sys.argv[1:] if arguments is None else arguments
        ignore_output_errors()
        configure_logging()
        for word in words:  # of a caller in Python: a shell can't pass one
            if "\0" in word:
                _print_error(f"{word!r}: expected an argument without NUL characters")
                return USAGE_ERROR
        stop = _FirstSignal()
        try:
            with stop_signals_handled(stop):
                return main(words)
        except SystemExit:
            raise
        except BaseException as error:
            # After a signal any exception: libraries turn a KeyboardInterrupt into their own.
            if stop.received is not None or isinstance(error, KeyboardInterrupt):
                number = stop.received or signal.SIGINT
                kept = f"; {error}" if isinstance(error, WorkKept) and str(error) else ""
                _print_error(f"\nstopped by {signal.Signals(number).name}{kept}")
                return 128 + number
            if isinstance(error, (UserError, SourceError)):
                _print_error(str(error))
            elif isinstance(error, OSError):
                _print_error(os_error_text(error))
            elif is_out_of_memory(error):
                _print_error(f"out of memory, of this machine or its device: {memory_line(error)}")
                return OUT_OF_MEMORY
            else:
                raise
            return USAGE_ERROR

    return wrapper


def run_command(main: Main, arguments: list[str] | None = None) -> NoReturn:
    """Runs a command as a process, which exits at once with the exit code of `main`.

    All that a command writes is written then. Python's own exit would join TensorFlow's threads,
    of which one that still reads an image may wait for Python in turn: runs that had saved after a
    signal never ended. It would also report an output that is closed.
    """
    code = 1
    try:
        separate_stderr()
        _stop_with_parent()
        code = main(arguments)
    except SystemExit as ended:  # argparse's
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        name_native_log()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # nobody reads it
                stream.flush()
        os._exit(code)


def add_path(
    parser: argparse._ActionsContainer, name: str, help: str, metavar: str = "DIR", **options: Any
) -> None:
    """Adds an option whose value is a path, in which `~` stands for the home folder."""
    parser.add_argument(name, type=os.path.expanduser, help=help, metavar=metavar, **options)


def add_set_option(parser: argparse.ArgumentParser, help: str = _SET_DATA) -> None:
    """Adds `--set KEY=VALUE`, which may be given again."""
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help=help
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--json` to the parser of a command whose result `print_json` prints."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the result as JSON on the last line, in a terminal too",
    )


def positive_int(text: str) -> int:
    """Reads an argument that is a whole number of 1 or more, of nine digits at most."""
    if not text.isdecimal() or len(text) > 9 or not int(text):
        limit = " and below 1,000,000,000" if text.isdecimal() and len(text) > 9 else ""
        raise argparse.ArgumentTypeError(
            f"expected a whole number of 1 or more{limit}; received {text!r:.40}"
        )
    return int(text)


def positive_float(text: str, largest: float = float("inf")) -> float:
    """Reads an argument that is a finite number above 0, and at most `largest`."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= largest or value == float("inf"):
        limit = "" if largest == float("inf") else f" and at most {largest:g}"
        raise argparse.ArgumentTypeError(f"expected a number above 0{limit}; received {text!r}")
    return value


def positive_fraction(text: str) -> float:
    """Reads an argument that is a number above 0 and at most 1."""
    return positive_float(text, 1.0)


def print_json(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Prints a result as one line of JSON, for programs: not in a terminal, unless asked for."""
    if options.json or not sys.stdout.isatty():
        print(json.dumps(result))


def program(name: str) -> str:
    """Returns the words that start a command, as this process was started: `byol train`, say."""
    by_script = Path(sys.argv[0]).name.partition(".")[0] == "byol"
    return f"byol {name}" if by_script else f"python -m byol_tf.{name}"


def command_text(name: str, arguments: Sequence[str]) -> str:
    """Returns a line to type that runs a command with arguments."""
    return shlex.join([*program(name).split(), *arguments])


def check_writable(folder: Path, option: str) -> None:
    """Checks that a folder can be written, before the work whose results go there; leaves no file.

    Args:
        folder: it needn't exist: then the nearest folder above it is tried.
        option: the folder's name in the message.

    Raises:
        OutputError: if no file can be made there, its name isn't UTF-8, or its `~` stands for no
            home folder.
    """
    if reason := why_not_utf8(folder):
        raise OutputError(f"{option} {folder}: can't be written: {reason}")
    if str(folder).startswith("~"):  # as it was given: there is no HOME, or no such user
        raise OutputError(
            f"{option} {folder}: expected a path without ~, which stands for no folder here; set "
            "HOME, or name the folder in full"
        )
    try:
        with tempfile.TemporaryFile(dir=_nearest_existing(folder.absolute())):
            pass
    except OSError as error:
        raise OutputError(
            f"{option} {folder}: can't be written: {error.strerror or error}"
        ) from error


def _nearest_existing(path: Path) -> Path:
    try:
        path.lstat()
    except FileNotFoundError:
        return _nearest_existing(path.parent)
    return path


def hint_at_options(unknown: Sequence[str], keys: Sequence[str], recipes: Sequence[str]) -> str:
    """Returns which options the unknown arguments of a command may stand for; "" if none is known.

    Args:
        unknown: the arguments, such as `--epochs 5` or `tiny.json`.
        keys: dotted keys of a config.
        recipes: names of the packaged configs.
    """
    hints = []
    for position, word in enumerate(unknown):
        name, _, value = word.partition("=")
        if name.startswith("--"):
            name = name[2:].replace("-", "_")
            following = unknown[position + 1 : position + 2]
            value = value or next((text for text in following if text[:1] != "-"), "VALUE")
            hints += [
                f"--set {key}={value}" for key in keys if key == name or key.endswith(f".{name}")
            ]
        elif word.endswith(".json") or word in recipes:
            hints.append(f"--config {word}")
        elif "=" in word and name in keys:
            hints.append(f"--set {word}")
    return f"; did you mean {' or '.join(hints)}?" if hints else ""


@contextlib.contextmanager
def stop_signals_handled(
    handler: Callable[[int, FrameType | None], None],
) -> Iterator[Collection[int]]:
    """Handles the signals that ask to stop by a function; then the former handlers are back.

    Signals that are ignored already stay ignored (`nohup`). In another thread than the main one
    none is handled: no signal arrives there, and Python lets it set no handlers.

    Yields:
        The numbers of the signals that are handled.
    """
    former: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    former[number] = signal.signal(number, handler)
        yield former
    finally:
        for number, before in former.items():
            signal.signal(number, before)


class _FirstSignal:
    """A handler that raises `KeyboardInterrupt` at the first signal, and exits at the second.

    Attributes:
        received: the number of the first one; None while there was none.
    """

    received: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        raise KeyboardInterrupt


def _stop_with_parent() -> None:
    """Sends this process SIGTERM when the one that `PARENT_VARIABLE` names has ended."""
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if not parent:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(_PARENT_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def os_error_text(error: OSError) -> str:
    """Returns the system's reason, after the file if it is known."""
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{error.filename}: {reason}"


def _print_error(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
