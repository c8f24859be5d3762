"""When checkpoints are taken, and what is in them."""

import time
from collections.abc import Callable

import keras

from byol_tf.callbacks.resumed_epoch import running_means
from byol_tf.checkpoint_writer import CheckpointWriter
from byol_tf.interruption import Interrupted, SignalWatch


class Checkpoint(keras.callbacks.Callback):
    """Saves the model, its optimizer and whatever the run must know to go on: at each epoch's end, and between if that is wanted.

    Between two steps it copies the variables and lets the writer do the rest. When a signal has come, it saves after the call that runs
    then, and stops.

    Args:
        writer: what writes checkpoints.
        state: gives what else to keep, as a JSON object; asked after the other callbacks.
        signals: that may ask to stop.
        steps: a checkpoint when so many steps were made since the last, as far as several steps in one call allow; None for none.
        minutes: one when so many have passed since the last; None for none.
        step: steps that the first epoch had before this `fit`.

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
    ):
        super().__init__()
        self.writer, self.state, self.signals = writer, state, signals
        self.steps, self.minutes = steps, minutes
        self._earlier = step
        self._unsaved_steps = 0
        self._saved_at = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._step = epoch, self._earlier
        self._whole = self._earlier + self.model.epoch_steps
        self._first, self._earlier = self._earlier, 0

    def on_train_batch_end(self, batch, logs=None):
        self._unsaved_steps += self._first + batch + 1 - self._step
        self._step = self._first + batch + 1
        asked = self.signals.received is not None
        # At an epoch's last step the checkpoint of its end is near. If the last one is still being written, the next call will do.
        if asked or (self._due() and self._step < self._whole and not self.writer.busy):
            self._save(self._epoch, self._step, {"logs": logs, "means": running_means(self.model)})
        if asked:
            self._stop(self._epoch, self._step)
        self.writer.check()

    def on_epoch_end(self, epoch, logs=None):
        self._save(epoch + 1, 0, {})
        if self.signals.received is not None:
            self._stop(epoch + 1, 0)

    def _due(self) -> bool:
        by_steps = self.steps is not None and self._unsaved_steps >= self.steps
        return by_steps or (self.minutes is not None and time.monotonic() - self._saved_at >= 60 * self.minutes)

    def _save(self, epoch: int, step: int, more: dict) -> None:
        self.writer.write(epoch, step, model_arrays(self.model), self.state() | more)
        self._unsaved_steps, self._saved_at = 0, time.monotonic()

    def _stop(self, epoch: int, step: int) -> None:
        self.writer.finish()
        raise Interrupted(self.signals.received, epoch, step, not self.writer.failed)


def model_arrays(model) -> dict:
    """Every variable of a compiled BYOL model as a NumPy array, by role and path."""
    return {name: variable.numpy() for name, variable in _named_variables(model).items()}


def restore_model(model, arrays: dict) -> None:
    """Sets every variable of a compiled BYOL model from `model_arrays`' output; `ValueError` that names what is missing, unknown or
    misshapen.
    """
    variables = _named_variables(model)
    wrong = sorted(set(variables) ^ set(arrays)) or sorted(name for name in variables if variables[name].shape != arrays[name].shape)
    if wrong:
        raise ValueError(f"the checkpoint doesn't fit this model: {len(wrong)} variables differ, among them {', '.join(wrong[:3])}")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _named_variables(model) -> dict[str, keras.Variable]:
    parts = {f"online/{name}": part.variables for name, part in model.parts.items()}
    if model.target == "ema":
        parts |= {"target/encoder": model.target_encoder.variables, "target/projector": model.target_projector.variables}
    parts["optimizer"] = model.optimizer.variables
    named = {}
    for role, variables in parts.items():
        for index, variable in enumerate(variables):
            # Keras gives copies of a layer the same path, and the optimizer's slots long ones; the index makes names unique and the order
            # checked.
            named[f"{role}/{index:04d}/{variable.path}"] = variable
    return named
