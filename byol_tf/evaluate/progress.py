"""Progress of a training on labels."""

from collections.abc import Callable

import keras

from byol_tf.logs import bar

Show = Callable[[str], None]
"""Shows a text as what is in progress."""


class EpochProgress(keras.callbacks.Callback):
    """Shows how many epochs of a training are done.

    Args:
        work: what is trained.
        show: called after each epoch.
    """

    def __init__(self, work: str, show: Show):
        super().__init__()
        self._work, self._show = work, show

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Shows the epoch that has ended."""
        done, total = epoch + 1, self.params["epochs"]
        self._show(f"{self._work}  {bar(done / total)}  {done}/{total} epochs")
