"""`python -m benchmarks.step`: the bare compiled BYOL step on one fixed batch.

With `--peer` also PyTorch with lightly's parts. Both sides take turns; the figure is the median
ratio of the pairs. SGD with momentum on both sides, as in lightly's example.
"""

import argparse
import json

from byol_tf.devices import prepare_environment

prepare_environment()

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers import Peer
from benchmarks.turns import Side, median_ratio, rounded, take_turns, timed
from byol_tf import BYOL, build_encoder, cosine_tau
from byol_tf.devices import set_precision
from byol_tf.models.optimizers import WarmupSchedule, build_optimizer


def bare_step(encoder: str, size: int, batch: int, jit: str = "auto") -> Side:
    """Steps of BYOL with the paper's heads on one batch of noise, in the global precision."""
    keras.utils.set_random_seed(0)
    model = BYOL(build_encoder(encoder, size), tau=cosine_tau(0.99, 1000))
    model.compile(
        build_optimizer("sgd", WarmupSchedule(1e-4, 1000)),
        jit_compile={"auto": "auto", "on": True, "off": False}[jit],
    )
    views = tuple(
        tf.constant(
            np.random.default_rng(view).normal(size=(batch, size, size, 3)).astype(np.float32)
        )
        for view in range(2)
    )
    step = tf.function(model.train_step, jit_compile=model.jit_compile, autograph=False)

    def run(steps):
        for _ in range(steps):
            step(views)["loss"].numpy()

    return timed(run)


def measure(
    encoder: str,
    size: int,
    batch: int,
    precision: str,
    jit: str,
    steps: int,
    pairs: int,
    peer: bool,
) -> dict:
    """Measures images per second of both sides, and the median ratio of ours to theirs."""
    set_precision(precision)
    sides = {"byol_tf": bare_step(encoder, size, batch, jit)}
    if peer:
        sides["torch"] = Peer(
            "torch_step", encoder=encoder, size=size, batch=batch, precision=precision
        )
    speeds = take_turns(sides, pairs, steps)
    settings = {
        "encoder": encoder,
        "size": size,
        "batch": batch,
        "precision": precision,
        "jit": jit,
    }
    result = {"benchmark": "step", **settings, "images_per_second": rounded(speeds, batch)}
    if peer:
        result |= {
            "against_torch": median_ratio(speeds, "byol_tf", "torch"),
            "versions": sides["torch"].versions,
        }
    return result


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--jit", choices=("auto", "on", "off"), default="auto")
    parser.add_argument("--steps", type=int, default=4, help="of each side in a pair")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--peer", action="store_true", help="beside PyTorch with lightly's parts (make peers)"
    )
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
