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

from benchmarks.step import add_options, compiled_steps
from benchmarks.turns import Side, median_ratio, rounded, take_turns, timed
from byol_tf import BYOL, build_encoder, cosine_tau
from byol_tf.models.networks import mlp_head
from byol_tf.models.optimizers import WarmupSchedule, build_optimizer


def _side(encoder: str, size: int, batch: int, normalization: str) -> Side:
    """Steps of a model whose encoder and heads are all normalised alike."""
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
    return timed(compiled_steps(model, size, batch))


def measure(encoder: str, size: int, batch: int, precision: str, steps: int, pairs: int) -> dict:
    """Images a second of both sides, and the median of how many times as long a step with group
    normalisation takes."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    sides = {name: _side(encoder, size, batch, name) for name in ("group", "batch")}
    speeds = take_turns(sides, pairs, steps)
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
    add_options(parser, steps=4)
    parser.add_argument(
        "--precision", choices=("float32", "mixed_bfloat16", "mixed_float16"), default="float32"
    )
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
