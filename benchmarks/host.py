"""`python -m benchmarks.host`: host time per step outside the compiled function, in `fit`.

A small network is trained with the callbacks of a run on a CPU, where the function returns when it
is done. Figures are medians of the rounds.
"""

import argparse
import json
import statistics
import time

from byol_tf.devices import prepare_environment

prepare_environment()

import keras
import numpy as np

from byol_tf import BYOL, TargetUpdate, build_encoder, cosine_tau, mlp_head
from byol_tf.models.optimizers import WarmupSchedule, build_optimizer
from byol_tf.train.callbacks.throughput import Throughput
from pipelines.batches import image_batches
from pipelines.policy import preset
from pipelines.sources import ArrayImages
from pipelines.views.fused import FusedViews

_SIZE, _BATCH = 32, 16


class _Clock(keras.callbacks.Callback):
    """Measures a round, from the end of its first call to the end of its last.

    `inside` is the part of it spent in the compiled function.
    """

    def on_train_begin(self, logs=None):
        self._function = self.model.train_function
        self.model.train_function = self._clocked

    def on_train_end(self, logs=None):
        self.model.train_function = self._function

    def _clocked(self, iterator):
        began = time.perf_counter()
        logs = self._function(iterator)
        self.inside += time.perf_counter() - began
        return logs

    def on_epoch_begin(self, epoch, logs=None):
        self.began, self.inside = None, 0.0

    def on_train_batch_end(self, batch, logs=None):
        self.ended = time.perf_counter()
        if self.began is None:
            self.began, self.inside = self.ended, 0.0


def measure(steps_per_execution: int, calls: int, rounds: int) -> dict:
    """Returns milliseconds per step outside and inside the compiled function."""
    keras.utils.set_random_seed(0)
    images = ArrayImages(
        np.random.default_rng(0).integers(0, 256, (256, _SIZE, _SIZE, 3), dtype=np.uint8)
    )
    views = [
        FusedViews(policy, _SIZE, view, (0.5,) * 3, (0.5,) * 3)
        for view, policy in enumerate(preset("byol"))
    ]
    model = BYOL(
        build_encoder("convnet", _SIZE, 0.25),
        mlp_head(32, 64, 32, "projector"),
        mlp_head(32, 64, 32, "predictor"),
        views=views,
    )
    model.compile(
        build_optimizer("lars", WarmupSchedule(0.1, 1000)), steps_per_execution=steps_per_execution
    )
    clock = _Clock()
    callbacks = [TargetUpdate(cosine_tau(0.99, 1000)), Throughput(_BATCH), clock]
    outside, inside = [], []
    steps = steps_per_execution * calls
    for _ in range(rounds + 1):
        model.fit(
            image_batches(images, _BATCH, 0),
            steps_per_epoch=steps,
            callbacks=callbacks,
            verbose=0,
            shuffle=False,
        )
        counted = steps - steps_per_execution
        outside.append((clock.ended - clock.began - clock.inside) / counted * 1e3)
        inside.append(clock.inside / counted * 1e3)
    return {
        "benchmark": "host",
        "steps_per_execution": steps_per_execution,
        "outside_ms": [round(x, 4) for x in outside[1:]],
        "median_outside_ms": round(statistics.median(outside[1:]), 4),
        "median_inside_ms": round(statistics.median(inside[1:]), 4),
    }


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host", description=__doc__)
    parser.add_argument("--steps-per-call", type=int, default=16)
    parser.add_argument("--calls", type=int, default=20, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
