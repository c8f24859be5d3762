"""`python -m benchmarks.fit`: whole `fit`, keras-cv views included, against the bare compiled step on one fixed batch.

Both sides take turns in one process; the figure is the median ratio of the pairs.
"""

import argparse
import json
import statistics
import time

from byol_tf.devices import prepare_environment

prepare_environment()

import keras
import numpy as np
import tensorflow as tf

from byol_tf import BYOL, TargetUpdate, build_encoder, cosine_tau
from byol_tf.optimizers import WarmupSchedule, build_optimizer
from pipelines.batches import view_batches
from pipelines.policy import preset
from pipelines.sources import ArrayImages

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Clock(keras.callbacks.Callback):
    """Times the batches of a `fit` after the first, which may wait for the stream to start."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.began = time.perf_counter()
        self.ended = time.perf_counter()


def measure(encoder: str, size: int, batch: int, steps: int, pairs: int) -> dict:
    """Images a second of both sides and the median of fit / bare over the pairs."""
    keras.utils.set_random_seed(0)
    images = ArrayImages(np.random.default_rng(0).integers(0, 256, (max(4 * batch, 512), size, size, 3), dtype=np.uint8))
    stream = view_batches(images, preset("byol"), size, batch, 0, _MEAN, _STD)
    model = BYOL(build_encoder(encoder, size))
    model.compile(build_optimizer("adam", WarmupSchedule(1e-4, 1000)), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    update = TargetUpdate(cosine_tau(0.99, 1000))
    update.set_model(model)
    views = next(iter(stream))
    bare = tf.function(model.train_step, autograph=False)
    clock = _Clock()
    options = {"steps_per_epoch": steps + 1, "callbacks": [update, clock], "verbose": 0, "shuffle": False}
    bare(views)
    model.fit(stream, **(options | {"steps_per_epoch": 2}))
    sides = {"fit": [], "bare": []}
    for _ in range(pairs):
        began = time.perf_counter()
        for _ in range(steps):
            bare(views)["loss"].numpy()
        sides["bare"].append(steps * batch / (time.perf_counter() - began))
        model.fit(stream, **options)
        sides["fit"].append(steps * batch / (clock.ended - clock.began))
    ratios = [fit / bare for fit, bare in zip(sides["fit"], sides["bare"], strict=True)]
    return {
        "benchmark": "fit against the bare step",
        "encoder": encoder,
        "size": size,
        "batch": batch,
        "fit_images_per_second": [round(x, 2) for x in sides["fit"]],
        "bare_images_per_second": [round(x, 2) for x in sides["bare"]],
        "ratio": round(statistics.median(ratios), 3),
    }


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description=__doc__)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="of each side in a pair")
    parser.add_argument("--pairs", type=int, default=5)
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
