"""When checkpoints are taken, and what is in them."""

import logging
import threading
import time
from collections.abc import Callable

import keras

from byol_tf.devices import on_cpu
from byol_tf.errors import Interrupted
from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.runs.process_exit import exit_now
from byol_tf.train.signals import SignalWatch

logger = logging.getLogger(__name__)


class ResumedEpoch(keras.callbacks.Callback):
    """Makes the first epoch of a `fit` the rest of one, with the running means that it had: its
    logs are those of the whole epoch.

    Args:
        step: steps of that epoch that are done, fewer than it has; 0 changes nothing.
        means: name of a metric -> (total, count) after them (see `running_means`).
    """

    def __init__(self, step: int, means: dict[str, tuple[float, float]]):
        super().__init__()
        self.step, self.means = step, means
        self._whole: int | None = None

    def on_epoch_begin(self, epoch, logs=None):
        if self.step:
            # Here, since Keras has just set all metrics to 0.
            for metric in self.model.metrics:
                for variable, value in zip(
                    (metric.total, metric.count), self.means[metric.name], strict=True
                ):
                    for copy in _copies(
                        self.model, variable
                    ):  # `assign` would share it out among the replicas, and round
                        copy.assign(value)
            self._whole = self.model.epoch_steps
            self.model.epoch_steps = self._whole - self.step
            self.step = 0
        elif self._whole is not None:
            self.model.epoch_steps = self._whole
            self._whole = None


def running_means(model: keras.Model) -> dict[str, tuple[float, float]]:
    """Name of each of the model's metrics, which are means over an epoch -> its (total, count).

    Those of any replica, which all hold the same numbers: BYOL's step takes the mean over them
    before it adds. So nobody has to ask the other processes, which wait at their next step.
    """
    return {
        metric.name: tuple(
            float(_copies(model, variable)[0]) for variable in (metric.total, metric.count)
        )
        for metric in model.metrics
    }


def _copies(model: keras.Model, variable: keras.Variable) -> tuple:
    """A variable's part on each of this process's replicas."""
    return model.distribute_strategy.experimental_local_results(variable.value)


_STUCK = 5.0
"""Seconds after which a batch doesn't come, once a signal has: a scheduler mostly gives 30 in
all."""
_LOST = 25.0
"""The same where the steps since the last checkpoint are lost by it."""


class Checkpoint(keras.callbacks.Callback):
    """Saves the model, its optimizer and whatever the run must know to go on: at each epoch's end,
    and between if that is wanted.

    Between two steps it copies the variables and lets the writer do the rest. When a signal has
    come, it saves after the call that runs then, and stops. Where that call waits for a batch that
    doesn't come, or a save hangs, nobody gets as far: then `end` ends the process.

    Args:
        writer: what writes checkpoints.
        state: gives what else to keep, as a JSON object; asked after the other callbacks.
        signals: that may ask to stop.
        steps: a checkpoint when so many steps were made since the last, as far as several steps in
            one call allow; None for none.
        minutes: one when so many have passed since the last; None for none.
        step: steps that the first epoch had before this `fit`.
        end: ends the process after a signal, whatever its threads wait for.

    Raises:
        Interrupted: in `fit`, after a signal, when the checkpoint is written.
        SavesFailed: in `fit`, when too many couldn't be written in a row.
    """

    def __init__(
        self,
        writer: CheckpointWriter,
        state: Callable[[], dict],
        signals: SignalWatch,
        steps: int | None = None,
        minutes: float | None = None,
        step: int = 0,
        end: Callable[[Interrupted], object] = lambda stopped: exit_now(stopped.exit_code),
    ):
        super().__init__()
        self.writer, self.state, self.signals = writer, state, signals
        self.steps, self.minutes = steps, minutes
        self.end, writer.on_hang = end, self._give_up
        self._epoch, self._step, self._earlier = 0, step, step
        self._unsaved_steps = 0
        self._saved_at = time.monotonic()
        self._logs: dict | None = None
        self._in_call, self._alone = False, threading.Lock()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._step = epoch, self._earlier
        self._whole = self._earlier + self.model.epoch_steps
        self._first, self._earlier = self._earlier, 0

    def on_train_batch_begin(self, batch, logs=None):
        self._in_call = True

    def on_train_batch_end(self, batch, logs=None):
        with self._alone:
            self._in_call, self._logs = False, logs
            self._unsaved_steps += self._first + batch + 1 - self._step
            self._step = self._first + batch + 1
            asked = self.signals.received is not None
            # At an epoch's last step the checkpoint of its end is near. If the last one is still
            # being written, the next call will do.
            if asked or (self._due() and self._step < self._whole and not self.writer.busy):
                self._save(*self._within())
            if asked:
                self._stop()
            self.writer.check()

    def on_epoch_end(self, epoch, logs=None):
        self._epoch, self._step = epoch + 1, 0
        self._save(model_arrays(self.model), self.state())
        if self.signals.received is not None:
            self._stop()

    def on_input_stall(self, seconds: float, still: Callable[[], bool]) -> None:
        """To be called again and again, from another thread, while the one that trains waits for a
        batch and this process does nothing.

        After a signal it saves what the step before left, and ends the process. Of a CPU's
        variables it is known that none changes before the batch is there, if each call makes one
        step; elsewhere the checkpoint before is what counts.

        Args:
            seconds: that the batch has been awaited.
            still: whether it still is.
        """
        at_rest = on_cpu(self.model.distribute_strategy) and self.model.steps_per_execution == 1
        if (
            self.signals.received is None
            or seconds < (_STUCK if at_rest else _LOST)
            or not self._alone.acquire(blocking=False)
        ):
            return
        try:
            if self._in_call:
                self._save_during_stall(at_rest, still)
        finally:
            self._alone.release()

    def _save_during_stall(self, at_rest: bool, still: Callable[[], bool]) -> None:
        saved = not self._unsaved_steps
        taken = self._within() if at_rest and not saved else None
        # what was taken may be from before the step and from after it; it is saved when the step is
        # made
        if not still():
            return
        if taken is not None:
            self._save(*taken)
            saved = True
        self.writer.finish()
        self.end(self._stopped(saved))

    def _give_up(self) -> None:
        """Called while a save is awaited that hangs."""
        if self.signals.received is not None:
            newest = self.writer.newest
            before = (
                "none was written before it since this process began"
                if newest is None
                else f"the newest checkpoint is {newest}"
            )
            logger.info("the save hangs; %s", before)
            self.end(self._stopped(False))

    def _due(self) -> bool:
        by_steps = self.steps is not None and self._unsaved_steps >= self.steps
        return by_steps or (
            self.minutes is not None and time.monotonic() - self._saved_at >= 60 * self.minutes
        )

    def _within(self) -> tuple[dict, dict]:
        """What a checkpoint within an epoch holds."""
        return model_arrays(self.model), self.state() | {
            "logs": self._logs,
            "means": running_means(self.model),
        }

    def _save(self, arrays: dict, state: dict) -> None:
        self.writer.write(self._epoch, self._step, arrays, state)
        self._unsaved_steps, self._saved_at = 0, time.monotonic()

    def _stop(self) -> None:
        self.writer.finish()
        raise self._stopped(True)

    def _stopped(self, saved: bool) -> Interrupted:
        return Interrupted(
            self.signals.received, self._epoch, self._step, saved and not self.writer.failed
        )


def model_arrays(model) -> dict:
    """Every variable of a compiled BYOL model as a NumPy array, by role and path."""
    return {name: variable.numpy() for name, variable in _named_variables(model).items()}


def restore_model(model, arrays: dict) -> None:
    """Sets every variable of a compiled BYOL model from `model_arrays`' output; `ValueError` that
    names what is missing, unknown or misshapen.
    """
    variables = _named_variables(model)
    wrong = sorted(set(variables) ^ set(arrays)) or sorted(
        name for name in variables if variables[name].shape != arrays[name].shape
    )
    if wrong:
        raise ValueError(
            f"the checkpoint doesn't fit this model: {len(wrong)} variables differ, among them "
            f"{', '.join(wrong[:3])}"
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _named_variables(model) -> dict[str, keras.Variable]:
    parts = {f"online/{name}": part.variables for name, part in model.parts.items()}
    if model.target == "ema":
        parts |= {
            "target/encoder": model.target_encoder.variables,
            "target/projector": model.target_projector.variables,
        }
    parts["optimizer"] = model.optimizer.variables
    named = {}
    for role, variables in parts.items():
        for index, variable in enumerate(variables):
            # Keras gives copies of a layer the same path, and the optimizer's slots long ones; the
            # index makes names unique and the order checked.
            named[f"{role}/{index:04d}/{variable.path}"] = variable
    return named
