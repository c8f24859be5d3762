"""`python -m benchmarks.guard`: the cost of checking that a step is finite.

On the bare step of `benchmarks.step`. Both sides take turns; the figure is the median ratio of the
pairs, above 1 where the checks take time.
"""

import argparse
import json
from unittest import mock

from byol_tf.devices import prepare_environment

prepare_environment()

import tensorflow as tf

from benchmarks.step import add_options, bare_step
from benchmarks.turns import Side, median_ratio, rounded, take_turns
from byol_tf.models import byol, nonfinite


def unguarded_step(encoder: str, size: int, batch: int) -> Side:
    """The same step, traced with nothing checked and nothing skipped."""
    no_failures = tf.zeros(len(nonfinite.PRE_UPDATE))
    with (
        mock.patch.object(nonfinite.SkipNonFinite, "_check", lambda *_: no_failures),
        mock.patch.object(byol, "total", lambda _: tf.zeros(())),
        mock.patch.object(nonfinite, "apply_or_rollback", lambda _, apply, __: apply[0](apply[1])),
    ):
        side = bare_step(encoder, size, batch)
        side(1)
    return side


def measure(encoder: str, size: int, batch: int, steps: int, pairs: int) -> dict:
    """Measures images per second of both sides, and how much longer the guarded step takes."""
    sides = {
        "without": unguarded_step(encoder, size, batch),
        "guarded": bare_step(encoder, size, batch),
    }
    speeds = take_turns(sides, pairs, steps)
    settings = {"encoder": encoder, "size": size, "batch": batch}
    return {
        "benchmark": "guard",
        **settings,
        "images_per_second": rounded(speeds, batch),
        "times": median_ratio(speeds, "without", "guarded"),
    }


def main() -> None:
    """Parses the command line and prints the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    add_options(parser, steps=4)
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
