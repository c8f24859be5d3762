"""Why a run stops by itself, and with which exit code. Needs no TensorFlow.

2 is for what is wrong before a run begins, 75 for another worker that was lost
(`train/failure_channel.py`), and 128 + n for signal n (`train/signals.py`). 66 and 74 are
EX_NOINPUT and EX_IOERR of sysexits.h.
"""

import signal
from collections.abc import Sequence


class ConfigError(Exception):
    """A config that can't be used. The message is complete: one mistake a line, each with its file
    or override, its key, and what was expected and received."""

    def __init__(self, lines: Sequence[str]):
        super().__init__("\n".join(lines))


class DeviceError(Exception):
    """The device, or the machines, that a config names aren't there. The text says what would be
    right."""


class ProtocolError(Exception):
    """A protocol can't be run on these images, labels or encoder; the text says why and what would
    be right."""


class VerificationError(Exception):
    """An exported file can't be used where byol_tf isn't. The text says what happened there."""


class UnsafeModelError(ValueError):
    """A model file that isn't loaded. The text says what is in it that has no place there."""


class RunFolderError(Exception):
    """A run folder can't be used; the text says why and what would be right."""


LOST = 75
"""Exit code of a process that can't go on without another one: "temporary failure, try again" in
BSD's sysexits.h."""


class Interrupted(Exception):
    """A run has stopped because a signal asked for it.

    Attributes:
        number: of the signal.
        epoch, step: where it stopped: whole epochs done, and steps of the next.
        saved: whether that could be saved.
    """

    def __init__(self, number: int, epoch: int, step: int, saved: bool):
        super().__init__(signal.Signals(number).name)
        self.number, self.epoch, self.step, self.saved = number, epoch, step, saved

    @property
    def exit_code(self) -> int:
        """By the convention of shells: 128 and the signal's number."""
        return 128 + self.number


NOT_FINITE, COLLAPSED, OUT_OF_MEMORY, IMAGES_LOST, SAVES_FAILED = 10, 11, 12, 66, 74


class RunStopped(Exception):
    """A run has stopped by itself; the text says why and what to do.

    Args:
        text: as above.
        change: of the config, as KEY=VALUE, with which the same run gets beyond what stopped it;
            None where there is none.

    Attributes:
        exit_code: of the command.
        change: as given.
    """

    exit_code = 1

    def __init__(self, text: str, change: str | None = None):
        super().__init__(text)
        self.change = change


class WorkerLost(RunStopped):
    """Another worker of the run is missing or has failed."""

    exit_code = LOST


class NotFiniteError(RunStopped, ArithmeticError):
    """Loss, gradient, weights or target aren't finite."""

    exit_code = NOT_FINITE


class Collapsed(RunStopped):
    """All images have the same projection, and `monitor.on_collapse` is `stop`."""

    exit_code = COLLAPSED


class OutOfMemory(RunStopped):
    """The device has no memory left for a step."""

    exit_code = OUT_OF_MEMORY


class ImagesLost(RunStopped):
    """More photos than `data.max_unreadable_fraction` can't be read any more."""

    exit_code = IMAGES_LOST


class SavesFailed(RunStopped):
    """What was learned can't be written any more; earlier checkpoints are intact."""

    exit_code = SAVES_FAILED


class EmbedError(Exception):
    """What the command was asked for can't be done; the text says why and what would be right."""


_SHOWN = 8
"""Names in a message; a network has hundreds, and when one is wrong, often all are."""


class ConversionError(Exception):
    """A file can't be converted; the text names the file or its tensors and says what was
    expected."""


def named(names: Sequence[str]) -> str:
    """`a, b, c and 40 more`."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
