"""Why a run stops by itself, and with which exit code. Needs no TensorFlow.

2 is for what is wrong before a run begins, 74 for saves that fail (`checkpoint_writer.py`), and 128 + n for signal n (`interruption.py`).
"""

NOT_FINITE, COLLAPSED, OUT_OF_MEMORY = 10, 11, 12
IMAGES_LOST = 66  # EX_NOINPUT of sysexits.h: more photos than data.max_bad_fraction can't be read any more


class RunStopped(Exception):
    """A run has stopped by itself; the text says why and what to do.

    Attributes:
        exit_code: of the command.
    """

    exit_code = 1


class NotFiniteError(RunStopped, ArithmeticError):
    """Loss, gradient, weights or target aren't finite."""

    exit_code = NOT_FINITE


class Collapsed(RunStopped):
    """All images have the same projection, and `monitor.on_collapse` is `stop`."""

    exit_code = COLLAPSED
