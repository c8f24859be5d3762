"""Exceptions of byol_tf, and the exit codes of its commands.

| exit code | meaning |
|---|---|
| 1 | an unexpected error, a file that failed its verification, or a run of a study that failed |
| 2 | wrong use or config, and nothing was started or written; or another process took the run |
| 10 to 12 | the run can't continue: not finite, collapsed, out of memory |
| 66, 74 | images lost, saves failed (EX_NOINPUT and EX_IOERR of sysexits.h) |
| 75 | another worker was lost; start all again (EX_TEMPFAIL) |
| 128 + n | stopped by signal n, as shells have it |

The text of each exception says what is wrong and what would be right.
"""

import json
import os
import signal
import stat
from collections.abc import Sequence
from typing import Any

USAGE_ERROR = 2
NOT_FINITE, COLLAPSED, OUT_OF_MEMORY, IMAGES_LOST, SAVES_FAILED, LOST = 10, 11, 12, 66, 74, 75


def escape(text: str, limit: int = 60) -> str:
    """Returns text from a file or a user on one line of at most `limit` characters.

    Characters that a terminal might act on become escape sequences: a name in a file from somebody
    else could set the window's title or write lines of its own.
    """
    text = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text[: limit + 1]
    )
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def one_line(error: Exception) -> str:
    """Returns an error's message on one printable line of at most 500 characters.

    Messages of Keras can contain the config of a network, and names from a file.
    """
    return escape(" ".join(str(error).split()) or type(error).__name__, 500)


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises `ValueError` unless the value of an argument is one of some words."""
    if value not in choices:
        *others, last = map(json.dumps, choices)
        raise ValueError(f"{name}: expected {', '.join(others)} or {last}; received {value!r}")


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory is full: Python's, or TensorFlow's of a device.

    TensorFlow's class also stands for a full disk. Its name is compared, as TensorFlow needn't be
    imported.
    """
    of_tensorflow = type(error).__name__ == "ResourceExhaustedError"
    full_disk = "No space left on device" in str(error)
    return isinstance(error, MemoryError) or (of_tensorflow and not full_disk)


def memory_line(error: BaseException) -> str:
    """Returns the line of an error's message that speaks of memory, or its first one."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = next((line for line in lines if "OOM" in line or "ut of memory" in line), lines[0])
    return escape(line.strip(), 500)


def code_span(text: str) -> str:
    """Returns text from elsewhere as a code span of Markdown, in which nothing of it is markup."""
    return f"`{escape(text, 100).replace('`', chr(39))}`"


def describe_path(path: str | os.PathLike[str], missing: str = "there is nothing there") -> str:
    """Returns what is at a path that should hold something else, as a clause of a message.

    A path that the system can't look at, as on a disk that is gone or with too long a name, is no
    missing one: the clause has the system's reason then. (`os.path.isfile` and its like return
    False there, where pathlib's methods raise.)
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return missing
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        return f"it can't be read: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISDIR(mode):
        return "that is a folder"
    return "that is a file" if stat.S_ISREG(mode) else "that is neither a file nor a folder"


def why_not_utf8(path: str | os.PathLike[str]) -> str | None:
    """Returns why nothing can be written to a path whose name isn't UTF-8; None for others."""
    try:
        os.fspath(path).encode()
        return None
    except UnicodeEncodeError:
        return (
            "its name isn't UTF-8, and TensorFlow opens no other; a link (ln -s) gives it another"
        )


class UserError(Exception):
    """An error in what the user gave; commands print its text and exit with `USAGE_ERROR`."""


class ConfigError(UserError):
    """A config that can't be used.

    Args:
        lines: one for each mistake: its file or override, its key, and what was expected and
            received.
    """

    def __init__(self, *lines: str):
        super().__init__("\n".join(lines))


class DeviceError(UserError):
    """The devices or workers of a config aren't available."""


class RunFolderError(UserError):
    """A run folder can't be used."""


class ProtocolError(UserError):
    """An evaluation protocol can't be run on these images, labels or encoder."""


class UnsafeModelError(ValueError):
    """A model file holds something that it has no use for, and is not loaded.

    Args:
        text: the reason; names from the file in it are escaped.
    """

    def __init__(self, text: str):
        super().__init__(escape(text, 500))


class VerificationError(Exception):
    """An exported file can't be used without byol_tf."""


class EmbedError(UserError):
    """Photos can't be embedded, or labels not predicted, as asked."""


class ConversionError(UserError):
    """A checkpoint of another project can't be converted; the text names the file or tensors.

    Args:
        text: one line or more; names from the file in it are escaped.
    """

    def __init__(self, text: str):
        super().__init__("\n".join(escape(line, 4000) for line in text.split("\n")))


class OutputError(UserError):
    """A file or folder that a command was asked to write can't be written."""


class WorkKept(KeyboardInterrupt):
    """A command was stopped by Ctrl-C or another signal, and keeps the work that it had finished.

    Args:
        text: says what is kept; empty if that is said elsewhere.
        result: of the finished part, as JSON types.

    Attributes:
        result: as given.
    """

    def __init__(self, text: str = "", result: dict[str, Any] | None = None):
        super().__init__(text)
        self.result = result or {}


class Interrupted(Exception):
    """A run was stopped by a signal.

    Attributes:
        number: of the signal.
        epoch: completed epochs.
        step: completed steps of the next epoch.
        saved: whether a checkpoint has them.
    """

    def __init__(self, number: int, epoch: int, step: int, saved: bool):
        super().__init__(signal.Signals(number).name)
        self.number, self.epoch, self.step, self.saved = number, epoch, step, saved

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells have it."""
        return 128 + self.number


class RunStopped(Exception):
    """A run has stopped by itself.

    Args:
        text: why, and what to do.
        change: a change of the config, as KEY=VALUE, with which the same run can be resumed beyond
            that point; None if there is none.

    Attributes:
        exit_code: of the command.
        change: as given.
    """

    exit_code = 1

    def __init__(self, text: str, change: str | None = None):
        super().__init__(text)
        self.change = change


class NotFiniteError(RunStopped, ArithmeticError):
    """Loss, gradients, weights or target aren't finite."""

    exit_code = NOT_FINITE


class Collapsed(RunStopped):
    """All images have the same projection, and `monitor.on_collapse` is `stop`."""

    exit_code = COLLAPSED


class OutOfMemory(RunStopped):
    """The device has too little memory for a step."""

    exit_code = OUT_OF_MEMORY


class ImagesLost(RunStopped):
    """More photos than `data.max_unreadable_fraction` have become unreadable."""

    exit_code = IMAGES_LOST


class SavesFailed(RunStopped):
    """Checkpoints can't be written any more; earlier ones are intact."""

    exit_code = SAVES_FAILED


class WorkerLost(RunStopped):
    """Another worker of the run is missing or has failed."""

    exit_code = LOST
