"""A checkpoint after each epoch."""

from collections.abc import Callable
from pathlib import Path

import keras

from byol_tf.checkpoints import write_checkpoint


class Checkpoint(keras.callbacks.Callback):
    """Saves the model, its optimizer and whatever the run must know to go on, after each epoch.

    Args:
        folder: where checkpoints lie.
        state: gives what else to keep, as a JSON object; asked after the epoch's other callbacks.
        keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, state: Callable[[], dict], keep: int = 3):
        super().__init__()
        self.folder, self.state, self.keep = folder, state, keep

    def on_epoch_end(self, epoch, logs=None):
        write_checkpoint(self.folder, epoch + 1, model_arrays(self.model), self.state(), self.keep)


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
