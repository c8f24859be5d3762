"""`python -m benchmarks.fit`: `fit`, views included, against the bare compiled step.

With `--peer` also against lightly's BYOL end to end: its transforms, a DataLoader with a worker a
core, its parts, eager and by `torch.compile`. All take turns; figures are medians of the ratios.
Batches that were made ahead in a pause aren't counted.
"""

import argparse
import json
import time

from byol_tf.devices import prepare_environment

prepare_environment()

import keras
import numpy as np

from benchmarks.peers import Peer, compile_modes
from benchmarks.step import add_options, bare_step
from benchmarks.turns import Side, against, median_ratio, rounded, take_turns
from byol_tf import BYOL, TargetUpdate, build_encoder, cosine_tau
from byol_tf.models.optimizers import WarmupSchedule, build_optimizer
from byol_tf.train.callbacks.throughput import Throughput
from pipelines.batches import image_batches, view_batches
from pipelines.policy import preset
from pipelines.sources import ArrayImages
from pipelines.views.fused import FusedViews

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_UNCOUNTED = 5
"""Steps before the clock starts: more than any side's reader makes ahead."""


class _Clock(keras.callbacks.Callback):
    """Times the batches of a `fit` after the uncounted ones."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == _UNCOUNTED - 1:
            self.began = time.perf_counter()
        self.ended = time.perf_counter()


def fit(engine: str, encoder: str, size: int, batch: int) -> Side:
    """Steps of `fit` on images in memory, in the global precision."""
    keras.utils.set_random_seed(0)
    images = ArrayImages(
        np.random.default_rng(0).integers(
            0, 256, (max(4 * batch, 512), size, size, 3), dtype=np.uint8
        )
    )
    policies = preset("byol")
    if engine == "fused":
        stream = image_batches(images, batch, 0)
        views = [
            FusedViews(policy, size, view, _MEAN, _STD) for view, policy in enumerate(policies)
        ]
    else:
        views = None
        stream = view_batches(images, policies, size, batch, 0, _MEAN, _STD, engine=engine)
    model = BYOL(build_encoder(encoder, size), views=views)
    model.compile(build_optimizer("sgd", WarmupSchedule(1e-4, 1000)))
    callbacks = [TargetUpdate(cosine_tau(0.99, 1000)), Throughput(batch), clock := _Clock()]

    def side(steps):
        model.fit(
            stream,
            steps_per_epoch=_UNCOUNTED + steps,
            callbacks=callbacks,
            verbose=0,
            shuffle=False,
        )
        return clock.ended - clock.began

    return side


def measure(
    encoder: str,
    size: int,
    batch: int,
    precision: str,
    engine: str,
    steps: int,
    pairs: int,
    peer: bool,
) -> dict:
    """Measures images per second of all sides, and the median ratios of `fit` to the others."""
    keras.config.set_dtype_policy(precision)
    settings = {"encoder": encoder, "size": size, "batch": batch, "precision": precision}
    sides = {"fit": fit(engine, encoder, size, batch), "bare": bare_step(encoder, size, batch)}
    peers = {}
    if peer:
        peers["lightly"] = Peer("lightly_fit", uncounted=_UNCOUNTED, **settings)
        for mode in compile_modes():
            peers[f"lightly_{mode}"] = Peer(
                "lightly_fit", uncounted=_UNCOUNTED, **settings, compiled=mode
            )
    speeds = take_turns(sides | peers, pairs, steps)
    result = {
        "benchmark": "fit",
        **settings,
        "engine": engine,
        "images_per_second": rounded(speeds, batch),
    }
    result["against_bare"] = median_ratio(speeds, "fit", "bare")
    if peer:
        result |= against(speeds, "fit", peers) | {"versions": peers["lightly"].versions}
    return result


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description=__doc__)
    add_options(parser, steps=8)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument(
        "--engine",
        choices=("fused", "keras", "keras_cv"),
        default="fused",
        help="as views.engine",
    )
    parser.add_argument("--peer", action="store_true", help="also lightly (make peers)")
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
