"""One training of `benchmarks.learn` on our side: `Experiment` with a clock."""

import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from byol_tf.devices import prepare_environment

prepare_environment()

import keras
import numpy as np
import tensorflow as tf

from byol_tf.config.loading import load_config
from byol_tf.models.from_config import tau_schedule
from byol_tf.models.optimizers import WarmupSchedule
from byol_tf.train.experiment import Experiment


class _Checkpoints(keras.callbacks.Callback):
    """Writes features at some of the epochs, and the seconds of training until then."""

    experiment: Experiment

    def __init__(self, photos, out, checkpoints):
        super().__init__()
        self._photos, self._out, self._checkpoints = photos, out, checkpoints
        self._seconds = self._cpu = 0.0
        self._images = 0

    def on_train_begin(self, logs=None):
        start = weights(self.model.networks) | schedules(self.experiment)
        np.savez(self._out / "start.npz", **start)
        self._write(0)

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, batch, logs=None):
        self._ended = time.perf_counter(), time.process_time()
        self._images += self.experiment.config.training.batch_size

    def on_epoch_end(self, epoch, logs=None):
        self._seconds += self._ended[0] - self._began[0]
        self._cpu += self._ended[1] - self._began[1]
        loss = (logs or {}).get("loss", float("nan"))
        print(f"ours: epoch {epoch + 1}, loss {loss:.3f}, {self._seconds:.0f} s", flush=True)
        if epoch + 1 in self._checkpoints:
            self._write(epoch + 1)

    def _write(self, epoch):
        inference = self.experiment.inference
        features = {
            name: inference.predict(self._photos[name], batch_size=500, verbose=0)
            for name in ("train", "test")
        }
        np.savez(
            self._out / f"ours-{epoch}.npz",
            **features,
            images=self._images,
            seconds=self._seconds,
            cpu_seconds=self._cpu,
        )


def weights(networks: Mapping[str, keras.Model]) -> dict[str, np.ndarray]:
    """Returns "ROLE/LAYER/VARIABLE" -> array, of a model's networks by role."""
    return {
        f"{role}/{layer.name}/{weight.name}": weight.numpy()
        for role, network in networks.items()
        for layer in network.layers
        for weight in layer.weights
    }


def schedules(experiment: Experiment) -> dict[str, np.ndarray]:
    """Returns learning rate and tau of each step."""
    config, schedule = experiment.config, experiment.schedule
    steps = tf.range(schedule.total_steps, dtype=tf.float32)
    rates = WarmupSchedule(
        schedule.peak_rate,
        schedule.total_steps,
        schedule.warmup_steps,
        config.optimizer.schedule,
    )
    taus = tau_schedule(config, schedule.total_steps)
    return {"rates": rates(steps).numpy(), "taus": np.broadcast_to(taus(steps), steps.shape)}


def train(config: str, photos: str, out: str, checkpoints: list[int]) -> None:
    """Trains; writes start and features, as `benchmarks.peers.torch_learn` does.

    Args:
        config: the config's file.
        photos: file of the arrays `unlabelled`, `train` and `test`.
        out: folder of `start.npz` and `ours-EPOCH.npz`.
        checkpoints: epochs.
    """
    arrays = dict(np.load(photos))
    run = Path(out) / "run"
    shutil.rmtree(run, ignore_errors=True)  # a resumed run would lack the seconds so far
    callback = _Checkpoints(arrays, Path(out), checkpoints)
    callback.experiment = Experiment(
        load_config(config),
        run,
        images={"unlabelled": arrays["unlabelled"]},
        callbacks=[callback],
    )
    callback.experiment.run(verbose=False)


if __name__ == "__main__":
    train(**json.loads(sys.argv[1]))
