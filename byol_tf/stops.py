"""Why a run stops by itself, and with which exit code. Needs no TensorFlow.

2 is for what is wrong before a run begins, 75 for another machine that was lost (`heartbeat.py`), and 128 + n for signal n
(`interruption.py`). 66 and 74 are EX_NOINPUT and EX_IOERR of sysexits.h.
"""

NOT_FINITE, COLLAPSED, OUT_OF_MEMORY, IMAGES_LOST, SAVES_FAILED = 10, 11, 12, 66, 74


class RunStopped(Exception):
    """A run has stopped by itself; the text says why and what to do.

    Args:
        text: as above.
        change: of the config, as KEY=VALUE, with which the same run gets beyond what stopped it; None where there is none.

    Attributes:
        exit_code: of the command.
        change: as given.
    """

    exit_code = 1

    def __init__(self, text: str, change: str | None = None):
        super().__init__(text)
        self.change = change


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
    """More photos than `data.max_bad_fraction` can't be read any more."""

    exit_code = IMAGES_LOST


class SavesFailed(RunStopped):
    """What was learned can't be written any more; earlier checkpoints are intact."""

    exit_code = SAVES_FAILED
