"""Callbacks that save checkpoints and resume within an epoch."""

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from byol_tf.devices import on_cpu
from byol_tf.errors import Interrupted, RunFolderError, escape
from byol_tf.models.byol import BYOL
from byol_tf.models.construction import refresh_constants
from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.runs.process_exit import exit_now
from byol_tf.train.signals import SignalWatch

logger = logging.getLogger(__name__)

Logs = dict[str, Any] | None


class ResumedEpoch(keras.callbacks.Callback):
    """Makes the first epoch of a `fit` the rest of one that was interrupted.

    The step's running means continue too, so the epoch's logs are those of the complete epoch. A
    metric of a layer begins anew.

    Args:
        step: completed steps of that epoch, fewer than it has; 0 changes nothing.
        means: name of a metric -> its (total, count) after them (see `running_means`).
    """

    def __init__(self, step: int, means: Mapping[str, tuple[float, float]]):
        super().__init__()
        self.step, self.means = step, means
        self._remaining_steps: int | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Restores the running means, before the first epoch only."""
        if self.step:
            # Here, since Keras has just reset all metrics.
            for name, mean in self.model.epoch_means.items():
                for variable, value in zip((mean.total, mean.count), self.means[name], strict=True):
                    # `variable.assign` would divide the value among replicas, and round.
                    for replica_variable in _replica_values(self.model, variable):
                        replica_variable.assign(value)
            self._remaining_steps = self.params["steps"] - self.step
            self.step = 0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Ends the resumed epoch after its last step; `fit` continues with the next epoch."""
        if self._remaining_steps is not None and batch + 1 >= self._remaining_steps:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Lets `fit` continue."""
        if self._remaining_steps is not None:
            self.model.stop_training, self._remaining_steps = False, None


def running_means(model: BYOL) -> dict[str, tuple[float, float]]:
    """Returns the (total, count) of each of the model's `epoch_means`.

    They are read on any replica, as all have the same: BYOL's step averages over replicas before it
    adds. So no other worker has to be asked, which would wait at its next step.
    """
    return {
        name: (
            float(_replica_values(model, mean.total)[0]),
            float(_replica_values(model, mean.count)[0]),
        )
        for name, mean in model.epoch_means.items()
    }


def _replica_values(model: keras.Model, variable: keras.Variable) -> tuple[tf.Variable, ...]:
    """Returns a variable's TensorFlow variables, one for each of this process's replicas."""
    return model.distribute_strategy.experimental_local_results(variable.value)


_STALLED = 5.0
"""Seconds to wait for a batch once a signal has come; schedulers mostly give 30 in all."""
_STALLED_UNSAVED = 25.0
"""The same where the steps since the last checkpoint would be lost."""


class Checkpoint(keras.callbacks.Callback):
    """Saves model, optimizer and callback state at each epoch's end and, if wanted, within epochs.

    It copies the variables between two steps and lets the writer do the rest. After a signal it
    saves once the current call of the compiled step is done, and stops. `fit` never gets that far
    where that call waits for a batch that doesn't come, or a save hangs: then `end` ends the
    process.

    Args:
        writer: writes the checkpoints in a thread.
        state: returns what else to save, as a JSON object; called after the other callbacks.
        signals: whose first signal asks to stop.
        every_steps: steps between checkpoints, as far as `steps_per_execution` allows; None saves
            at each epoch's end only.
        every_minutes: minutes between checkpoints, likewise.
        first_step: steps of the first epoch that were done before this `fit`.
        end: ends the process after a signal, whatever its threads wait for.

    Raises:
        Interrupted: in `fit`, after a signal, when the checkpoint is written.
        SavesFailed: in `fit`, when too many couldn't be written in a row.
        RunFolderError: in `fit`, if another process has taken over the run.
    """

    def __init__(
        self,
        writer: CheckpointWriter,
        state: Callable[[], dict[str, Any]],
        signals: SignalWatch,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        first_step: int = 0,
        end: Callable[[Interrupted], object] = lambda stopped: exit_now(stopped.exit_code),
    ):
        super().__init__()
        self.writer, self.state, self.signals = writer, state, signals
        self.every_steps, self.every_minutes = every_steps, every_minutes
        self.end = end
        writer.on_hang = self._on_hanging_save
        # Position: completed epochs, and steps of the current one.
        self._epoch, self._step = 0, first_step
        self._steps_before_fit = first_step
        self._unsaved_steps = 0
        self._saved_at = time.monotonic()
        self._logs: Logs = None
        # The thread that watches the input saves only while the training thread is inside a call.
        self._in_call, self._lock = False, threading.Lock()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Sets the position to the epoch's first step, or to the resumed one."""
        self._epoch, self._step = epoch, self._steps_before_fit
        self._epoch_offset, self._steps_before_fit = self._steps_before_fit, 0
        self._steps_per_epoch = self.params["steps"]

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Notes that the compiled step is called."""
        self._in_call = True

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Saves if a checkpoint is due or a signal has come; stops after a signal."""
        with self._lock:
            self._in_call, self._logs = False, logs
            step = self._epoch_offset + batch + 1
            self._unsaved_steps += step - self._step
            self._step = step
            signal_number = self.signals.received
            # At an epoch's last step the one of its end is near. If the last checkpoint is still
            # being written, the next call will do.
            if signal_number is not None or (
                self._due() and self._step < self._steps_per_epoch and not self.writer.busy
            ):
                self._save(*self._snapshot_within_epoch())
            if signal_number is not None:
                self._stop(signal_number)
            self.writer.check()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Saves; stops after a signal."""
        self._epoch, self._step = epoch + 1, 0
        self._save(model_arrays(self.model), self.state())
        if self.signals.received is not None:
            self._stop(self.signals.received)

    def on_input_stall(self, seconds: float, still_waiting: Callable[[], bool]) -> None:
        """Saves the last completed step and ends the process, if a signal came during a stall.

        To be called again and again from another thread while the training thread waits for a batch
        and this process is idle. A CPU's variables don't change before the batch is there if each
        call runs one step; elsewhere the newest earlier checkpoint has to do.

        Args:
            seconds: that the batch has been awaited.
            still_waiting: returns whether it still is.
        """
        can_save = on_cpu(self.model.distribute_strategy) and self.model.steps_per_execution == 1
        signal_number = self.signals.received
        if (
            signal_number is None
            or seconds < (_STALLED if can_save else _STALLED_UNSAVED)
            or not self._lock.acquire(blocking=False)
        ):
            return
        try:
            if self._in_call:
                self._end_during_stall(signal_number, can_save, still_waiting)
        finally:
            self._lock.release()

    def _end_during_stall(
        self, signal_number: int, can_save: bool, still_waiting: Callable[[], bool]
    ) -> None:
        saved = not self._unsaved_steps
        snapshot = self._snapshot_within_epoch() if can_save and not saved else None
        # If the batch has come meanwhile, the snapshot may mix variables from before and after the
        # step; the training thread saves once the step is done.
        if not still_waiting():
            return
        with contextlib.suppress(RunFolderError):  # another process has the run: not saved
            if snapshot is not None:
                self._save(*snapshot)
                saved = True
            self.writer.finish()
        self.end(self._interrupted(signal_number, saved))

    def _on_hanging_save(self) -> None:
        """Ends the process after a signal; called while a hanging save is awaited."""
        if self.signals.received is None:
            return
        newest = self.writer.newest
        available = (
            "none was written before it since this process started"
            if newest is None
            else f"the newest checkpoint is {newest}"
        )
        logger.info("the save hangs; %s", available)
        self.end(self._interrupted(self.signals.received, saved=False))

    def _due(self) -> bool:
        if self.every_steps is not None and self._unsaved_steps >= self.every_steps:
            return True
        minutes = (time.monotonic() - self._saved_at) / 60
        return self.every_minutes is not None and minutes >= self.every_minutes

    def _snapshot_within_epoch(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return model_arrays(self.model), self.state() | {
            "logs": self._logs,
            "means": running_means(self.model),
        }

    def _save(self, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
        self.writer.write(self._epoch, self._step, arrays, state)
        self._unsaved_steps, self._saved_at = 0, time.monotonic()

    def _stop(self, signal_number: int) -> None:
        self.writer.finish()
        raise self._interrupted(signal_number, saved=True)

    def _interrupted(self, signal_number: int, saved: bool) -> Interrupted:
        return Interrupted(signal_number, self._epoch, self._step, saved and not self.writer.failed)


def model_arrays(model: BYOL) -> dict[str, np.ndarray]:
    """Returns every variable of a compiled BYOL model as an array, by role and path."""
    return {name: variable.numpy() for name, variable in _named_variables(model).items()}


def restore_model(model: BYOL, arrays: Mapping[str, np.ndarray]) -> None:
    """Sets every variable of a compiled BYOL model.

    Args:
        model: with the variables that `model_arrays` was called on.
        arrays: what it returned.

    Raises:
        ValueError: if arrays are missing, unknown or of other shapes; the text names some.
    """
    variables = {_uncounted(name): each for name, each in _named_variables(model).items()}
    arrays = {_uncounted(name): array for name, array in arrays.items()}
    wrong = sorted(set(variables) ^ set(arrays)) or sorted(
        name for name in variables if variables[name].shape != arrays[name].shape
    )
    if wrong:
        raise ValueError(
            f"the checkpoint doesn't fit this model: {len(wrong)} variables differ, among them "
            f"{', '.join(map(escape, wrong[:3]))}"
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])
    for network in (*model.networks.values(), *model.target_networks.values()):
        refresh_constants(network)


def _uncounted(name: str) -> str:
    """Returns a variable's name without the numbers of unnamed layers and weights: conv2d_1.

    Keras counts those in each process; the index keeps names unique.
    """
    return re.sub(r"_\d+(?=[/_]|$)", "", name)


def _named_variables(model: BYOL) -> dict[str, keras.Variable]:
    by_role = {f"online/{name}": part.variables for name, part in model.networks.items()}
    by_role |= {f"target/{name}": part.variables for name, part in model.target_networks.items()}
    # Keras gives copies of a layer the same path; the index makes names unique and has
    # `restore_model` check the order.
    named = {
        f"{role}/{index:04d}/{variable.path}": variable
        for role, variables in by_role.items()
        for index, variable in enumerate(variables)
    }
    # An optimizer's paths begin with its name, which Keras counts in each process: adam, adam_1.
    return named | {
        f"optimizer/{index:04d}/{variable.name}": variable
        for index, variable in enumerate(model.optimizer.variables)
    }
