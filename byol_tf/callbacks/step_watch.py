"""What single steps reported: those that were left out, and jumps of the loss."""

from collections import deque
from collections.abc import Callable

import keras

_BEFORE = 100
"""Steps whose largest loss a step is held against."""
_JUMP = 2.0
"""Times that largest loss: well above the noise of batches."""
_LEAST = 0.01
"""Below it a loss tells nothing apart: unrelated vectors have 2 in each direction."""


class StepWatch(keras.callbacks.Callback):
    """Puts `skipped_steps`, those of the run so far, into each epoch's logs, and says where steps were left out or the loss jumped.

    A jump is a step's loss above twice the largest of the 100 steps before it. It is said, once an epoch, and nothing else is done: runs
    get over most of them. Where one doesn't, its numbers cease to be finite or it collapses, and those have policies.

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
        for step, (loss, troubles) in enumerate(zip(call.losses, call.troubles, strict=True), start=first):
            if troubles:
                self._skipped += 1
                if self._skipped == 1:
                    self.say(f"step {step:,} left out, not finite: {', '.join(troubles)} ({self.model.skipped_steps:,} in this run so far)")
                continue
            if len(self._losses) == _BEFORE and loss > max(_JUMP * max(self._losses), _LEAST):
                self._jumps += 1
                if self._jumps == 1:
                    self.say(f"the loss jumped at step {step:,}: {loss:.3g}, after at most {max(self._losses):.3g} in the {_BEFORE} before")
            self._losses.append(float(loss))

    def on_epoch_end(self, epoch, logs=None):
        logs["skipped_steps"] = self.model.skipped_steps
        if self._skipped > 1:
            self.say(f"{self._skipped:,} steps of epoch {epoch + 1} were left out")
        if self._jumps > 1:
            self.say(f"the loss jumped at {self._jumps:,} steps of epoch {epoch + 1}")
