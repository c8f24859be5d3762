"""`python -m benchmarks.checkpoint`: cost of a checkpoint that is written during training.

Both sides make the same steps of one model on one fixed batch, in turns; one of them saves a
checkpoint after its first step, and waits at its end until that is on disk. The difference is the
whole cost: the copy between two steps, the cores and the disk that the save takes from the steps,
and the wait. It is reported as a fraction of the time between two checkpoints.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from byol_tf.devices import prepare_environment

prepare_environment()

import keras

from benchmarks.step import add_options, compiled_steps
from benchmarks.turns import take_turns, timed
from byol_tf import BYOL, build_encoder, cosine_tau
from byol_tf.models.optimizers import WarmupSchedule, build_optimizer
from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.train.callbacks.checkpoint import model_arrays


def measure(
    encoder: str,
    size: int,
    batch: int,
    optimizer: str,
    steps: int,
    pairs: int,
    every: int,
    folder: Path,
) -> dict:
    """Measures the seconds of a step and of a checkpoint.

    Args:
        encoder: name of the encoder.
        size: side of the views, in pixels.
        batch: images a step.
        optimizer: name of the optimizer.
        steps: of each side in a turn.
        pairs: number of turns.
        every: steps between two checkpoints, for the fraction.
        folder: that checkpoints are written to.

    Returns:
        The figures, as JSON types.
    """
    keras.utils.set_random_seed(0)
    model = BYOL(build_encoder(encoder, size), tau=cosine_tau(0.99, 1000))
    model.compile(build_optimizer(optimizer, WarmupSchedule(1e-4, 1000)))
    plain = compiled_steps(model, size, batch)
    writer = CheckpointWriter(folder, 2)

    def saving(count):
        plain(1)
        writer.write(0, int(model.optimizer.iterations.numpy()), model_arrays(model), {"rows": []})
        plain(count - 1)
        writer.wait()
        if writer.failed:
            raise OSError(f"{folder}: a save failed")

    speeds = take_turns({"plain": timed(plain), "saving": timed(saving)}, pairs, steps)
    turns = {name: [steps / speed for speed in measured] for name, measured in speeds.items()}
    step_seconds = statistics.median(turns["plain"]) / steps
    costs = [
        with_one - without
        for with_one, without in zip(turns["saving"], turns["plain"], strict=True)
    ]
    cost = statistics.median(costs)
    return {
        "benchmark": "checkpoint",
        "encoder": encoder,
        "size": size,
        "batch": batch,
        "optimizer": optimizer,
        "megabytes": round(sum(array.nbytes for array in model_arrays(model).values()) / 1e6, 1),
        "step_seconds": round(step_seconds, 3),
        "checkpoint_seconds": [round(seconds, 3) for seconds in costs],
        "every": every,
        "share": round(cost / (every * step_seconds), 4),
    }


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint", description=__doc__)
    add_options(parser, steps=6)
    parser.add_argument("--optimizer", choices=("sgd", "adam", "lars"), default="adam")
    parser.add_argument(
        "--every",
        type=int,
        default=50,
        help="steps between two checkpoints, for the fraction",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="where checkpoints go, on the disk to be measured (default: a temporary one)",
    )
    options = vars(parser.parse_args())
    below = options.pop("folder")
    with tempfile.TemporaryDirectory(dir=below) as folder:
        print(json.dumps(measure(**options, folder=Path(folder))))


if __name__ == "__main__":
    main()
