"""`python -m benchmarks.step`: the bare compiled BYOL step on one fixed batch.

With `--peer` also PyTorch with lightly's parts, channels last: eager, and by `torch.compile` in its
default and its `max-autotune` mode. All sides take turns; figures are the medians of the ratios.
SGD with momentum on all sides, as in lightly's example. The first steps compile, for minutes.
"""

import argparse
import json
from collections.abc import Callable

from byol_tf.devices import prepare_environment

prepare_environment()

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers import Peer, compile_modes
from benchmarks.turns import Side, against, rounded, take_turns, timed
from byol_tf import BYOL, build_encoder, cosine_tau
from byol_tf.models.optimizers import WarmupSchedule, build_optimizer


def compiled_steps(model: BYOL, size: int, batch: int) -> Callable[[int], None]:
    """A function that does so many compiled steps of a model on one batch of noise."""
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

    return run


def bare_step(encoder: str, size: int, batch: int, jit: str = "auto") -> Side:
    """Steps of BYOL with the paper's heads on one batch of noise, in the global precision."""
    keras.utils.set_random_seed(0)
    model = BYOL(build_encoder(encoder, size), tau=cosine_tau(0.99, 1000))
    model.compile(
        build_optimizer("sgd", WarmupSchedule(1e-4, 1000)),
        jit_compile={"auto": "auto", "on": True, "off": False}[jit],
    )
    return timed(compiled_steps(model, size, batch))


def add_options(parser: argparse.ArgumentParser, steps: int) -> None:
    """Adds the options of all benchmarks of steps; `steps` is the default of --steps."""
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=steps, help="of each side in a pair")
    parser.add_argument("--pairs", type=int, default=5)


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
    """Measures images per second of all sides, and the median ratios of ours to theirs."""
    keras.config.set_dtype_policy(precision)
    settings = {"encoder": encoder, "size": size, "batch": batch, "precision": precision}
    peers = {}
    if peer:
        peers["torch"] = Peer("torch_step", **settings)
        for mode in compile_modes():
            peers[f"torch_{mode}"] = Peer("torch_step", **settings, compiled=mode)
    speeds = take_turns({"byol_tf": bare_step(encoder, size, batch, jit)} | peers, pairs, steps)
    result = {"benchmark": "step", **settings, "jit": jit}
    result["images_per_second"] = rounded(speeds, batch)
    if peer:
        result |= against(speeds, "byol_tf", peers) | {"versions": peers["torch"].versions}
    return result


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    add_options(parser, steps=4)
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--jit", choices=("auto", "on", "off"), default="auto")
    parser.add_argument(
        "--peer", action="store_true", help="beside PyTorch with lightly's parts (make peers)"
    )
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
