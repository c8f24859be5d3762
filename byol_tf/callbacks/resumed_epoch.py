"""An epoch that was broken off, and goes on."""

import keras


class ResumedEpoch(keras.callbacks.Callback):
    """Makes the first epoch of a `fit` the rest of one, with the running means that it had: its logs are those of the whole epoch.

    Args:
        step: steps of that epoch that are done, fewer than it has; 0 changes nothing.
        means: name of a metric -> (total, count) after them, over all replicas (see `running_means`).
    """

    def __init__(self, step: int, means: dict[str, tuple[float, float]]):
        super().__init__()
        self.step, self.means = step, means
        self._whole: int | None = None

    def on_epoch_begin(self, epoch, logs=None):
        if self.step:
            # Here, since Keras has just set all metrics to 0.
            for metric in self.model.metrics:
                total, count = self.means[metric.name]
                metric.total.assign(total)
                metric.count.assign(count)
            self._whole = self.model.epoch_steps
            self.model.epoch_steps = self._whole - self.step
            self.step = 0
        elif self._whole is not None:
            self.model.epoch_steps = self._whole
            self._whole = None


def running_means(model: keras.Model, logs: dict[str, float], steps: int) -> dict[str, tuple[float, float]]:
    """Name of each of the model's metrics, which are means over an epoch -> its (total, count) over all replicas.

    Args:
        model: compiled.
        logs: of the last step: the means so far.
        steps: of the epoch so far.
    """
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas == 1:
        return {metric.name: (float(metric.total), float(metric.count)) for metric in model.metrics}
    # To read variables of several replicas asks the other processes, which wait at their next step. The logs are everybody's mean already.
    return {metric.name: (logs[metric.name] * steps * replicas, float(steps * replicas)) for metric in model.metrics}
