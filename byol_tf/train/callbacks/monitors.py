"""Whether the training step waits for images."""

import time
from collections import deque
from collections.abc import Callable

import keras

_LEFT_OUT = 5
"""First calls of a `fit`: they trace, compile and fill buffers."""
_CALLS, _SECONDS = 20, 2.0
"""At least so many calls, and so long, make a window."""
_WINDOWS = 3
"""Windows in a row that must show it, so that one hiccup of a disk doesn't."""
SHARE = 1 / 3
"""Of the steps' time spent waiting, from which on it is said. A small run on two cores that other
programs wanted too had 22% and 32%, which says nothing of its input."""


class InputWatch(keras.callbacks.Callback):
    """Says once, with the figures, if steps wait for images a third of their time or more.

    What counts is how long a call's first step waits for its batch, when the devices have nothing
    to do; the steps after it are taken to wait as long. (Where those ask for their batches the
    devices still compute, so that the host's waiting costs nothing there.) With
    `training.deterministic` TensorFlow lets no step look at a clock, and nothing is said.

    Args:
        batch_size: images of a step, over all replicas.
        less_work: what could be changed for less to do for each image, in words; may be empty.
        say: prints a line for people.
    """

    def __init__(self, batch_size: int, less_work: str, say: Callable[[str], None] = print):
        super().__init__()
        self.batch_size, self.less_work, self.say = batch_size, less_work, say
        self.said = False
        self._calls = 0
        self._begin_window(())

    def _begin_window(self, shares: tuple[float, ...]) -> None:
        self._shares = shares
        self._window = [0, 0, 0.0, 0.0]  # calls, steps, seconds, seconds waited

    def on_train_batch_begin(self, batch, logs=None):
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        seconds, call = time.perf_counter() - self._began, self.model.last_call
        self._calls += 1
        if self.said or self._calls <= _LEFT_OUT or not hasattr(call, "waited"):
            return
        steps = len(call.losses)
        now = 1, steps, seconds, min(call.waited * steps, seconds)
        self._window = [had + more for had, more in zip(self._window, now, strict=True)]
        calls, steps, seconds, waited = self._window
        if calls < _CALLS or seconds < _SECONDS:
            return
        shares = (*self._shares, waited / seconds)[-_WINDOWS:]
        self._begin_window(shares)
        if len(shares) == _WINDOWS and min(shares) >= SHARE:
            self.said = True
            given = steps * self.batch_size / seconds
            taken = steps * self.batch_size / max(seconds - waited, 1e-9)
            less = f", or less to do for each image: {self.less_work}" if self.less_work else ""
            self.say(
                f"warning: the input is slower than the step, which waits {waited / seconds:.0%} "
                f"of the time: {given:,.0f} images/s come, "
                f"and it could take {taken:,.0f}. More cores would help{less}. --dry-run measures "
                "both"
            )


_BEFORE = 100
"""Steps whose largest loss a step is held against."""
_JUMP = 2.0
"""Times that largest loss: well above the noise of batches."""
_LEAST = 0.01
"""Below it a loss tells nothing apart: unrelated vectors have 2 in each direction."""


class StepWatch(keras.callbacks.Callback):
    """Puts `skipped_steps`, those of the run so far, into each epoch's logs, and says where steps
    were left out or the loss jumped.

    A jump is a step's loss above twice the largest of the 100 steps before it. It is said, once an
    epoch, and nothing else is done: runs get over most of them. Where one doesn't, its numbers
    cease to be finite or it collapses, and those have policies.

    Args:
        say: prints a line for people.
    """

    def __init__(self, say: Callable[[str], None] = print):
        super().__init__()
        self.say = say
        self._losses: deque[float] = deque(maxlen=_BEFORE)
        self._skipped = self._jumps = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._skipped = self._jumps = 0

    def on_train_batch_end(self, batch, logs=None):
        call = self.model.last_call
        first = self.model.steps_seen - len(call.losses) + 1
        for step, (loss, failures) in enumerate(
            zip(call.losses, call.failures, strict=True), start=first
        ):
            if failures:
                self._skipped += 1
                if self._skipped == 1:
                    self.say(
                        f"step {step:,} left out, not finite: {', '.join(failures)} "
                        f"({self.model.skipped_steps:,} in this run so far)"
                    )
                continue
            if len(self._losses) == _BEFORE and loss > max(_JUMP * max(self._losses), _LEAST):
                self._jumps += 1
                if self._jumps == 1:
                    self.say(
                        f"the loss jumped at step {step:,}: {loss:.3g}, after at most "
                        f"{max(self._losses):.3g} in the {_BEFORE} before"
                    )
            self._losses.append(float(loss))

    def on_epoch_end(self, epoch, logs=None):
        logs["skipped_steps"] = self.model.skipped_steps
        if self._skipped > 1:
            self.say(f"{self._skipped:,} steps of epoch {epoch + 1} were left out")
        if self._jumps > 1:
            self.say(f"the loss jumped at {self._jumps:,} steps of epoch {epoch + 1}")
