"""Sides that take turns in one run: on a machine whose speed drifts, only what ran a moment apart
can be compared."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

Side = Callable[[int], float]
"""Does so many units of work and returns the seconds that they took."""

_PAUSE = 0.3
"""Seconds between two turns, in which threads of the last side come to rest and readers fill their
queues again."""


def timed(run: Callable[[int], object]) -> Side:
    """The side of a function that does so many units of work."""

    def side(units):
        began = time.perf_counter()
        run(units)
        return time.perf_counter() - began

    return side


def in_process(module: str, *words: object, python: object = sys.executable) -> Any:
    """Runs a module in a process of its own; returns what its last line of JSON says."""
    command = [str(word) for word in (python, "-m", module, *words)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def take_turns(
    sides: dict[str, Side], rounds: int, units: int | None = None, seconds: float = 1.0
) -> dict[str, list[float]]:
    """Units a second of each side in each round.

    Args:
        sides: name -> side. Each is warmed up first with two units, of which the first may compile.
        rounds: turns of each.
        units: a turn's. Default: as many as a side does in `seconds`.
        seconds: length of a turn where `units` is None.
    """
    counts = {}
    for name, side in sides.items():
        side(2)
        counts[name] = units or max(1, round(2 * seconds / side(2)))
    speeds = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            time.sleep(_PAUSE)
            speeds[name].append(counts[name] / side(counts[name]))
    return speeds


def median_ratio(speeds: dict[str, list[float]], fast: str, base: str) -> float:
    """The median over the rounds of what `fast` did to what `base` did."""
    return round(
        statistics.median(a / b for a, b in zip(speeds[fast], speeds[base], strict=True)), 3
    )


def against(speeds: dict[str, list[float]], name: str, peers: Iterable[str]) -> dict[str, Any]:
    """Median ratios of a side to others, and which of these is the fastest."""
    peers = list(peers)
    ratios = {f"against_{peer}": median_ratio(speeds, name, peer) for peer in peers}
    return ratios | {"fastest_peer": fastest(speeds, peers)}


def fastest(speeds: dict[str, list[float]], sides: Iterable[str]) -> str:
    """The side with the highest median speed."""
    return max(sides, key=lambda side: statistics.median(speeds[side]))


def rounded(speeds: dict[str, list[float]], batch: int) -> dict[str, list[float]]:
    """Images a second, for people."""
    return {
        name: [round(batch * speed, 1) for speed in measured] for name, measured in speeds.items()
    }
