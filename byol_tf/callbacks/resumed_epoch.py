"""An epoch that was broken off, and goes on."""

import keras


class ResumedEpoch(keras.callbacks.Callback):
    """Makes the first epoch of a `fit` the rest of one, with the running means that it had: its logs are those of the whole epoch.

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
                for variable, value in zip((metric.total, metric.count), self.means[metric.name], strict=True):
                    for copy in _copies(self.model, variable):  # `assign` would share it out among the replicas, and round
                        copy.assign(value)
            self._whole = self.model.epoch_steps
            self.model.epoch_steps = self._whole - self.step
            self.step = 0
        elif self._whole is not None:
            self.model.epoch_steps = self._whole
            self._whole = None


def running_means(model: keras.Model) -> dict[str, tuple[float, float]]:
    """Name of each of the model's metrics, which are means over an epoch -> its (total, count).

    Those of any replica, which all hold the same numbers: BYOL's step takes the mean over them before it adds. So nobody has to ask the
    other processes, which wait at their next step.
    """
    return {metric.name: tuple(float(_copies(model, variable)[0]) for variable in (metric.total, metric.count)) for metric in model.metrics}


def _copies(model: keras.Model, variable: keras.Variable) -> tuple:
    """A variable's part on each of this process's replicas."""
    return model.distribute_strategy.experimental_local_results(variable.value)
