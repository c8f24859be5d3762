"""`python -m benchmarks.input_watchdog`: what watching each batch costs, in a compiled loop.

The watched and the plain pipeline are timed in turns; figures are medians of the rounds.
"""

import argparse
import json
import statistics
import time

from byol_tf.devices import prepare_environment

prepare_environment()

import tensorflow as tf

from byol_tf.train.input_watchdog import InputWatchdog


def measure(batches: int, rounds: int) -> dict[str, float]:
    """Median milliseconds in which a compiled loop takes a batch that costs nothing to make."""
    plain = tf.data.Dataset.range(tf.int64.max).map(lambda index: tf.fill([64], index))
    datasets = {"plain_ms": plain, "watched_ms": InputWatchdog(print).watch(plain)}
    iterators = {name: iter(dataset) for name, dataset in datasets.items()}

    @tf.function(reduce_retracing=True)
    def take(iterator, count):
        for _ in tf.range(count):
            next(iterator)

    times: dict[str, list[float]] = {name: [] for name in datasets}
    for count in (tf.constant(50), *[tf.constant(batches)] * rounds):  # the first one compiles
        for name, iterator in iterators.items():
            began = time.perf_counter()
            take(iterator, count)
            times[name].append(1e3 * (time.perf_counter() - began) / int(count))
    return {name: round(statistics.median(values[1:]), 4) for name, values in times.items()}


def main() -> None:
    """Prints the medians as a JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.input_watchdog", description=__doc__
    )
    parser.add_argument("--batches", type=int, default=3000, help="in each round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps(measure(options.batches, options.rounds)))


if __name__ == "__main__":
    main()
