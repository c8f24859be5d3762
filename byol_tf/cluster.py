"""Which of several machines this process is, as `TF_CONFIG` says. Needs no TensorFlow.

```
TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'
```
"""

import contextlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from byol_tf.heartbeat import LOST


class DeviceError(Exception):
    """The device, or the machines, that a config names aren't there. The text says what would be right."""


@dataclass(frozen=True)
class Cluster:
    """The processes of one run, one on each machine.

    Attributes:
        addresses: host:port of each, the chief's first.
        index: which of them this process is, counted from 0.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0


_MEETING = 600.0
_REMINDER = 30.0


@contextlib.contextmanager
def awaited(
    cluster: Cluster, limit: float = _MEETING, reminder: float = _REMINDER, end: Callable[[int], None] = os._exit
) -> Iterator[None]:
    """While this is entered, the others are awaited: TensorFlow would do so silently and for ever, though one has failed already.

    Args:
        cluster: of this process.
        limit: seconds after which this process ends, with exit code `LOST`: machines are rarely started at the same moment, and some have
            to load their software first.
        reminder: seconds between two lines that say so.
        end: ends this process.
    """
    others = ", ".join(address for index, address in enumerate(cluster.addresses) if index != cluster.index)
    met = threading.Event()

    def remind() -> None:
        waited = 0.0
        while not met.wait(reminder):
            waited += reminder
            over = waited >= limit
            what = "ended. Start all machines again" if over else f"ends at {limit:g} s"
            text = f"\nmachine {cluster.index + 1} of {len(cluster.addresses)} has waited {waited:g} s for {others}; {what}\n"
            os.write(2, text.encode())
            if over:
                end(LOST)
                return

    threading.Thread(target=remind, name="meeting", daemon=True).start()
    try:
        yield
    finally:
        met.set()


def read_cluster(environment: Mapping[str, str]) -> Cluster:
    """The cluster that `TF_CONFIG` describes: a list `worker`, and before it, where a scheduler sets one, `chief`.

    Args:
        environment: such as `os.environ`.

    Raises:
        DeviceError: if `TF_CONFIG` is missing or isn't what TensorFlow takes; the text says which part of it.
    """
    text = environment.get("TF_CONFIG")
    if not text:
        raise _error(_EXAMPLE, "none" if text is None else "an empty one")
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise _error(_EXAMPLE, f"something that is no JSON ({error})") from error
    tree = _object(tree, "an object")
    jobs = _object(tree.get("cluster"), '"cluster" as an object')
    if unknown := sorted(set(jobs) - {"chief", "worker"}):
        raise _error('"worker", and at most "chief" beside it, in "cluster"', ", ".join(unknown))
    addresses = []
    for job in ("chief", "worker"):
        listed = jobs.get(job, [])
        if not isinstance(listed, list) or not all(isinstance(address, str) and _ADDRESS.fullmatch(address) for address in listed):
            raise _error(f'"cluster.{job}" as a list of "host:port"', json.dumps(listed))
        addresses += listed
    if not addresses or len(jobs.get("chief", [])) > 1:
        raise _error('at least one "host:port" in "cluster.worker", and at most one in "cluster.chief"', json.dumps(jobs))
    if len(set(addresses)) < len(addresses):
        raise _error('another "host:port" for each process', json.dumps(addresses))
    return Cluster(tuple(addresses), _index(_object(tree.get("task"), '"task" as an object'), jobs))


_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}, with its own index on each'
_ADDRESS = re.compile(r"\S+:\d{1,5}")


def _index(task: dict, jobs: dict) -> int:
    """The place of a task among the chief and the workers."""
    kind, index = task.get("type"), task.get("index")
    if not isinstance(kind, str) or kind not in jobs:
        raise _error(f'"task.type" as one of {", ".join(map(json.dumps, sorted(jobs)))}', json.dumps(kind))
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(jobs[kind]):
        raise _error(f'"task.index" from 0 to {len(jobs[kind]) - 1}, as "cluster.{kind}" lists {len(jobs[kind])}', json.dumps(index))
    return index + (len(jobs.get("chief", [])) if kind == "worker" else 0)


def _object(tree, expected: str) -> dict:
    if not isinstance(tree, dict):
        raise _error(expected, json.dumps(tree))
    return tree


def _error(expected: str, received: str) -> DeviceError:
    return DeviceError(
        f'devices.strategy: "multi_worker" reads the environment variable TF_CONFIG, the same on each machine but for the task; expected '
        f"{expected}; received {received:.200}"
    )
