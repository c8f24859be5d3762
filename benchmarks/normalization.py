"""`python -m benchmarks.normalization`: a BYOL step with group normalisation and weight
standardisation against one with batch norm.

Both sides take turns in one process on one fixed batch; the figure is the median ratio of the
pairs.
"""

import argparse
import json

from byol_tf.devices import prepare_environment

prepare_environment()

import keras
import numpy as np
import tensorflow as tf

from benchmarks.turns import median_ratio, rounded, take_turns, timed
from byol_tf import BYOL, build_encoder, cosine_tau
from byol_tf.models.networks import mlp_head
from byol_tf.models.optimizers import WarmupSchedule, build_optimizer


def _step(encoder: str, size: int, normalization: str):
    """The compiled step of a model whose encoder and heads are all normalised alike."""
    network = build_encoder(encoder, size, normalization=normalization)
    projector = mlp_head(
        network.output_shape[-1], 4096, 256, "projector", normalization=normalization
    )
    model = BYOL(
        network,
        projector,
        mlp_head(256, 4096, 256, "predictor", normalization=normalization),
        tau=cosine_tau(0.99, 1000),
    )
    model.compile(build_optimizer("adam", WarmupSchedule(1e-4, 1000)), jit_compile=False)
    return tf.function(model.train_step, autograph=False)


def measure(encoder: str, size: int, batch: int, precision: str, steps: int, pairs: int) -> dict:
    """Images a second of both sides, and the median of how many times as long a step with group
    normalisation takes."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    views = tuple(
        np.random.default_rng(0).normal(size=(2, batch, size, size, 3)).astype(np.float32)
    )

    def side(step):
        def run(count):
            for _ in range(count):
                step(views)["loss"].numpy()

        return timed(run)

    speeds = take_turns(
        {name: side(_step(encoder, size, name)) for name in ("group", "batch")}, pairs, steps
    )
    settings = {"encoder": encoder, "size": size, "batch": batch, "precision": precision}
    times = median_ratio(speeds, "batch", "group")
    return {
        "benchmark": "normalization",
        **settings,
        "images_per_second": rounded(speeds, batch),
        "group_takes_times_batch": times,
    }


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.normalization", description=__doc__)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--precision", choices=("float32", "mixed_bfloat16", "mixed_float16"), default="float32"
    )
    parser.add_argument("--steps", type=int, default=4, help="of each side in a pair")
    parser.add_argument("--pairs", type=int, default=5)
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
