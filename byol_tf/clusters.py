"""Clusters of workers, as the environment variables of a scheduler describe them."""

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from byol_tf.errors import DeviceError

DESCRIPTIONS = ("TF_CONFIG", "CLUSTER_SPEC", "SLURM_JOB_ID")
"""The environment variables of which each shows that a cluster is described."""


@dataclass(frozen=True)
class Cluster:
    """The worker processes of one run.

    Attributes:
        addresses: `host:port` of each worker, the chief's first.
        index: index of this process in `addresses`.
        origin: what describes the cluster: `TF_CONFIG`, `CLUSTER_SPEC` or a job of Slurm.
        gpus: the value of `CUDA_VISIBLE_DEVICES` that gives this process its part of the machine's
            GPUs; None to leave that variable as it is.
    """

    addresses: tuple[str, ...]
    index: int
    origin: str
    gpus: str | None = None

    @property
    def chief(self) -> bool:
        """True if this process is the one that writes the run folder."""
        return self.index == 0


def read_cluster(environment: Mapping[str, str]) -> Cluster:
    """Reads the cluster from the first of these variables that are set.

    - `TF_CONFIG`, which is TensorFlow's: a list `worker`, and before it, if a scheduler sets one, a
      list `chief` of one address.
    - `CLUSTER_SPEC`, which is Vertex AI's: the machines of all its worker pools.
    - Slurm's: the tasks of a step that `srun` has started.

    Args:
        environment: such as `os.environ`.

    Raises:
        DeviceError: if none is set, or one is wrong or inconsistent with others; the message names
            the variable and its wrong part.
    """
    for variable in ("TF_CONFIG", "CLUSTER_SPEC"):
        if variable in environment:
            return _from_json(variable, environment[variable])
    if "SLURM_JOB_ID" in environment:
        return _from_slurm(environment)
    raise _error("TF_CONFIG", _EXAMPLE, "none, and no variables of Slurm or Vertex AI")


_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", '
    '"index": 0}}, with its own index on each'
)
_ADDRESS = re.compile(r"[!-~]+:([0-9]{1,5})")


def _from_json(variable: str, text: str) -> Cluster:
    if not text:
        raise _error(variable, _EXAMPLE, "an empty one")
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _error(variable, _EXAMPLE, f"invalid JSON ({error})") from error
    tree = _check_object(variable, tree, "an object")
    jobs = _check_object(variable, tree.get("cluster"), '"cluster" as an object')
    names = ["chief", "worker"] if variable == "TF_CONFIG" else sorted(jobs)
    if unknown := sorted(set(jobs) - set(names)):
        raise _error(variable, 'only "worker" and "chief" in "cluster"', ", ".join(unknown))
    addresses: list[str] = []
    first_index = {}
    for name in names:
        of_job = jobs.get(name, [])
        if not isinstance(of_job, list) or not all(map(_is_address, of_job)):
            expected = f'"cluster.{name}" as a list of "host:port", ports from 1 to 65535'
            raise _error(variable, expected, json.dumps(of_job))
        first_index[name] = len(addresses)
        addresses += of_job
    if not addresses or len(jobs.get("chief", [])) > 1:
        expected = (
            'at least one "host:port" in "cluster.worker", and at most one in "cluster.chief"'
        )
        raise _error(variable, expected, json.dumps(jobs))
    if len(set(addresses)) < len(addresses):
        raise _error(variable, 'another "host:port" for each process', json.dumps(addresses))
    task = _check_object(variable, tree.get("task"), '"task" as an object')
    job, index = task.get("type"), task.get("index")
    if not isinstance(job, str) or job not in jobs:
        expected = f'"task.type" as one of {", ".join(map(json.dumps, sorted(jobs)))}'
        raise _error(variable, expected, json.dumps(job))
    count = len(jobs[job])
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
        expected = f'"task.index" from 0 to {count - 1}, as "cluster.{job}" lists {count}'
        raise _error(variable, expected, json.dumps(index))
    return Cluster(tuple(addresses), first_index[job] + index, variable)


def _is_address(value: Any) -> bool:
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    return match is not None and 0 < int(match[1]) < 2**16


def _check_object(variable: str, tree: Any, expected: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise _error(variable, expected, json.dumps(tree))
    return tree


def _error(variable: str, expected: str, received: str) -> DeviceError:
    same = ", the same on each machine but for the task" if variable == "TF_CONFIG" else ""
    return DeviceError(
        f'devices.strategy: "multi_worker" reads the environment variable {variable}{same}; '
        f"expected {expected}; received {received:.200}"
    )


_RANGES = r"\d{1,9}(?:-\d{1,9})?(?:,\d{1,9}(?:-\d{1,9})?)*"
_HOST = rf"(?:[\w.-]|\[{_RANGES}\])+"
_COUNT = r"(\d{1,9})(?:\(x(\d{1,9})\))?"


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    """Reads the tasks of a step from the variables that `srun` sets.

    https://slurm.schedmd.com/srun.html, "OUTPUT ENVIRONMENT VARIABLES". TensorFlow's
    `SlurmClusterResolver` isn't used: it imports TensorFlow, which takes seconds before a mistake
    is reported; it sorts hosts as text, so that n10 gets the rank of n9; it fails on nodes without
    NVIDIA's tools; and it has the same ports for all jobs.
    """
    job, rank, node, local = (
        _number(environment, name)
        for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NODEID", "SLURM_LOCALID")
    )
    hosts = _expand_hosts(_of_step(environment, "SLURM_STEP_NODELIST"))
    counts = _expand_counts(_of_step(environment, "SLURM_STEP_TASKS_PER_NODE"))
    if len(hosts) != len(counts):
        expected = f"a number for each of the {len(hosts)} hosts in SLURM_STEP_NODELIST"
        raise _error(
            "SLURM_STEP_TASKS_PER_NODE", expected, environment["SLURM_STEP_TASKS_PER_NODE"]
        )
    # 16 ports for each of 768 jobs, so that two on one node rarely meet; all below 32,768, where
    # Linux' ports for outgoing connections begin.
    port = 20_000 + 16 * (job % 768)
    tasks = [(place, task) for place, count in enumerate(counts) for task in range(count)]
    if tasks[rank : rank + 1] != [(node, local)]:
        raise _error(
            "SLURM_PROCID",
            "ranks in blocks, node by node, as srun --distribution=block gives them",
            f"{rank} for task {local} of node {node}, of {counts} tasks",
        )
    addresses = tuple(f"{hosts[place]}:{port + task}" for place, task in tasks)
    return Cluster(
        addresses, rank, f"Slurm's job {job}", _own_gpus(environment, local, counts[node])
    )


def _of_step(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise _error(name, "a step of the job: start the command with srun", "none")
    return environment[name]


def _number(environment: Mapping[str, str], name: str) -> int:
    text = _of_step(environment, name)
    if not re.fullmatch(r"\d{1,12}", text):
        raise _error(name, "a number", json.dumps(text))
    return int(text)


def _expand_hosts(text: str) -> list[str]:
    """Returns the hosts in a list like `n[01-03,7],login`, in its order."""
    if not re.fullmatch(f"{_HOST}(?:,{_HOST})*", text):
        expected = "names with ranges of numbers, such as n[01-03,7],m1"
        raise _error("SLURM_STEP_NODELIST", expected, json.dumps(text))
    hosts = []
    for names in re.findall(_HOST, text):
        parts = re.split(rf"\[({_RANGES})\]", names)  # text and ranges by turns
        choices = [_expand_ranges(part) if i % 2 else [part] for i, part in enumerate(parts)]
        hosts += ["".join(choice) for choice in itertools.product(*choices)]
    return hosts


def _expand_ranges(text: str) -> list[str]:
    numbers = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        width = len(first)  # leading zeros belong to the names
        numbers += [f"{n:0{width}}" for n in range(int(first), int(last or first) + 1)]
    return numbers


def _expand_counts(text: str) -> list[int]:
    """Returns the number of tasks on each node in a list like `4(x2),3`."""
    if not re.fullmatch(f"{_COUNT}(?:,{_COUNT})*", text):
        expected = "numbers of tasks, such as 4(x2),3"
        raise _error("SLURM_STEP_TASKS_PER_NODE", expected, json.dumps(text))
    counts: list[int] = []
    for count, times in re.findall(_COUNT, text):
        counts += [int(count)] * int(times or 1)
    return counts


def _own_gpus(environment: Mapping[str, str], local: int, tasks: int) -> str | None:
    """Returns this task's share of the node's GPUs, if each of its tasks sees all of them."""
    visible = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if tasks == 1 or str(len(visible)) != environment.get("SLURM_GPUS_ON_NODE"):
        return None  # Slurm itself binds GPUs to tasks, with --gpus-per-task for example
    if len(visible) % tasks:
        expected = f"a multiple of {tasks} GPUs, as there are {tasks} tasks on this node"
        raise _error("CUDA_VISIBLE_DEVICES", expected, ",".join(visible))
    share = len(visible) // tasks
    return ",".join(visible[local * share : (local + 1) * share])
