"""Clusters of workers, as TF_CONFIG, Vertex AI and Slurm describe them."""

import json

import pytest

from byol_tf.clusters import Cluster, read_cluster
from byol_tf.errors import DeviceError

TWO = ["10.0.0.1:2222", "10.0.0.2:2222"]


def read(jobs, task) -> Cluster:
    return read_cluster({"TF_CONFIG": json.dumps({"cluster": jobs, "task": task})})


def test_first_worker_is_the_chief():
    clusters = [read({"worker": TWO}, {"type": "worker", "index": index}) for index in (0, 1)]
    assert [cluster.index for cluster in clusters] == [0, 1]
    assert [cluster.chief for cluster in clusters] == [True, False]
    assert clusters[0].addresses == clusters[1].addresses == tuple(TWO)
    assert clusters[0].origin == "TF_CONFIG"


def test_separate_chief_precedes_the_workers():
    jobs = {"chief": ["10.0.0.9:1"], "worker": TWO}
    clusters = [
        read(jobs, {"type": job, "index": index})
        for job, index in (("chief", 0), ("worker", 0), ("worker", 1))
    ]
    assert [cluster.index for cluster in clusters] == [0, 1, 2]
    assert clusters[2].addresses == ("10.0.0.9:1", *TWO)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            None,
            r"with its own index on each; received none, and no variables of Slurm or Vertex AI$",
        ),
        ("", "received an empty one$"),
        ("worker 0", "received invalid JSON"),
        ("[]", r"expected an object; received \[\]$"),
        ("{}", 'expected "cluster" as an object; received null$'),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "received invalid JSON"),
    ],
)
def test_invalid_cluster_description_is_an_error(text, message):
    with pytest.raises(DeviceError, match=message) as caught:
        read_cluster({} if text is None else {"TF_CONFIG": text})
    assert str(caught.value).startswith(
        'devices.strategy: "multi_worker" reads the environment variable TF_CONFIG'
    )


FIRST = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("jobs", "task", "message"),
    [
        ({}, FIRST, 'expected at least one "host:port" in "cluster.worker"'),
        (
            {"worker": TWO, "ps": TWO},
            FIRST,
            'expected only "worker" and "chief" in "cluster"; received ps$',
        ),
        (
            {"worker": "10.0.0.1:2222"},
            FIRST,
            'expected "cluster.worker" as a list of "host:port", ports from 1 to 65535; '
            'received "10.0.0.1:2222"$',
        ),
        (
            {"worker": ["10.0.0.1"]},
            FIRST,
            r'expected "cluster.worker" as a list of "host:port", .*; received \["10.0.0.1"\]$',
        ),
        ({"worker": ["10.0.0.1:65536"]}, FIRST, r"from 1 to 65535; received .*:65536"),
        ({"worker": ["10.0.0.1:0"]}, FIRST, r"from 1 to 65535; received .*:0"),
        ({"worker": ["h\u00f6st:1"]}, FIRST, r"from 1 to 65535; received"),
        ({"worker": ["\ud800:1"]}, FIRST, r"from 1 to 65535; received"),
        ({"worker": [TWO[0], TWO[0]]}, FIRST, 'expected another "host:port" for each process'),
        ({"chief": TWO, "worker": []}, FIRST, 'at most one in "cluster.chief"'),
        ({"worker": TWO}, None, 'expected "task" as an object; received null$'),
        (
            {"worker": TWO},
            {"type": "evaluator", "index": 0},
            'expected "task.type" as one of "worker"; received "evaluator"$',
        ),
        (
            {"worker": TWO},
            {"type": "worker", "index": 2},
            'expected "task.index" from 0 to 1, as "cluster.worker" lists 2; received 2$',
        ),
        (
            {"worker": TWO},
            {"type": "worker", "index": -1},
            'expected "task.index" from 0 to 1, as "cluster.worker" lists 2; received -1$',
        ),
        (
            {"worker": TWO},
            {"type": "worker", "index": "0"},
            'expected "task.index" from 0 to 1, .* received "0"$',
        ),
        (
            {"worker": TWO},
            {"type": "worker"},
            'expected "task.index" from 0 to 1, .* received null$',
        ),
    ],
)
def test_error_names_the_wrong_part(jobs, task, message):
    with pytest.raises(DeviceError, match=message):
        read(jobs, task)


POOLS = {"workerpool0": ["job-0:2222"], "workerpool1": ["job-1:2222", "job-2:2222"]}


def vertex(jobs: dict, job: str, index: int) -> dict[str, str]:
    """The variables of a machine of Vertex AI."""
    task = {"type": job, "index": index, "trial": "1"}
    tree = {"cluster": jobs, "environment": "cloud", "task": task, "job": "{}"}
    return {"CLUSTER_SPEC": json.dumps(tree)}


def test_machines_of_all_worker_pools_are_workers_on_vertex():
    chief = read_cluster(vertex(POOLS, "workerpool0", 0))
    last = read_cluster(vertex(POOLS, "workerpool1", 1))
    addresses = ("job-0:2222", "job-1:2222", "job-2:2222")
    assert chief == Cluster(addresses, 0, "CLUSTER_SPEC")
    assert last == Cluster(addresses, 2, "CLUSTER_SPEC")


def test_tf_config_precedes_what_schedulers_set():
    environment = vertex(POOLS, "workerpool1", 1) | slurm(0) | {"TF_CONFIG": ""}
    with pytest.raises(DeviceError, match=r"variable TF_CONFIG, .* received an empty one"):
        read_cluster(environment)


def test_wrong_cluster_spec_is_named():
    with pytest.raises(
        DeviceError, match=r'CLUSTER_SPEC; expected "task.index" from 0 to 1, .* 2$'
    ):
        read_cluster(vertex(POOLS, "workerpool1", 2))


def slurm(rank: int, **changes: str | None) -> dict[str, str]:
    """The variables of a task of Slurm, of six on n[9-10]; those that are None are missing."""
    node, local = (0, rank) if rank < 4 else (1, rank - 4)
    variables = {
        "SLURM_JOB_ID": "4711",
        "SLURM_PROCID": str(rank),
        "SLURM_NODEID": str(node),
        "SLURM_LOCALID": str(local),
        "SLURM_STEP_NODELIST": "n[9-10]",
        "SLURM_STEP_TASKS_PER_NODE": "4,2",
    }
    return {name: text for name, text in (variables | changes).items() if text is not None}


def test_tasks_of_slurm_are_workers_in_the_order_of_their_ranks():
    clusters = [read_cluster(slurm(rank)) for rank in range(6)]
    addresses = tuple(
        f"{host}:{21648 + local}"
        for host, count in (("n9", 4), ("n10", 2))
        for local in range(count)
    )
    assert clusters == [Cluster(addresses, rank, "Slurm's job 4711") for rank in range(6)]


def test_jobs_of_slurm_have_ports_of_their_own():
    ports = set()
    for job in range(100_000, 100_768):
        addresses = read_cluster(slurm(0, SLURM_JOB_ID=str(job))).addresses
        ports |= {int(address.partition(":")[2]) for address in addresses}
    assert len(ports) == 768 * 4
    assert min(ports) >= 1024
    assert max(ports) < 32_768


@pytest.mark.parametrize(
    ("nodes", "counts", "hosts"),
    [
        ("login", "2", ["login"] * 2),
        ("n[08-10,3],m1", "1(x5)", ["n08", "n09", "n10", "n3", "m1"]),
        (
            "r[1-2]-n[7-8].lan",
            "1,2,1(x2)",
            ["r1-n7.lan", *["r1-n8.lan"] * 2, "r2-n7.lan", "r2-n8.lan"],
        ),
    ],
)
def test_lists_of_slurm_are_expanded(nodes, counts, hosts):
    changes = {"SLURM_STEP_NODELIST": nodes, "SLURM_STEP_TASKS_PER_NODE": counts}
    addresses = read_cluster(slurm(0, **changes)).addresses
    assert [address.partition(":")[0] for address in addresses] == hosts


@pytest.mark.parametrize(
    ("rank", "changes", "message"),
    [
        (
            0,
            {"SLURM_STEP_NODELIST": None},
            "variable SLURM_STEP_NODELIST; expected a step of the job: start the command with srun; "
            "received none$",
        ),
        (0, {"SLURM_LOCALID": "x"}, 'SLURM_LOCALID; expected a number; received "x"$'),
        (
            0,
            {"SLURM_STEP_NODELIST": "n[9-"},
            r'SLURM_STEP_NODELIST; expected names .*, such as n\[01-03,7\],m1; received "n\[9-"$',
        ),
        (0, {"SLURM_STEP_NODELIST": ""}, 'SLURM_STEP_NODELIST; expected names .*; received ""$'),
        (
            0,
            {"SLURM_STEP_TASKS_PER_NODE": "4x2"},
            r'TASKS_PER_NODE; expected numbers of tasks, such as 4\(x2\),3; received "4x2"$',
        ),
        (
            0,
            {"SLURM_STEP_TASKS_PER_NODE": "6"},
            "TASKS_PER_NODE; expected a number for each of the 2 hosts in SLURM_STEP_NODELIST; "
            "received 6$",
        ),
        (
            1,  # as srun --distribution=cyclic gives them
            {"SLURM_NODEID": "1", "SLURM_LOCALID": "0"},
            "SLURM_PROCID; expected ranks in blocks, node by node, as srun --distribution=block "
            r"gives them; received 1 for task 0 of node 1, of \[4, 2\] tasks$",
        ),
        (5, {"SLURM_PROCID": "6"}, "SLURM_PROCID; expected ranks in blocks"),
    ],
)
def test_inconsistent_variables_of_slurm_are_an_error(rank, changes, message):
    with pytest.raises(DeviceError, match=message):
        read_cluster(slurm(rank, **changes))


@pytest.mark.parametrize(
    ("rank", "visible", "on_node", "own"),
    [
        (0, "0,1,2,3", "4", "0"),
        (3, "0,1,2,3", "4", "3"),
        (5, "GPU-a,GPU-b,GPU-c,GPU-d", "4", "GPU-c,GPU-d"),
        (3, "0", "4", None),  # bound to its task by Slurm
        (0, "0,1,2,3", None, None),
        (0, None, None, None),
    ],
)
def test_tasks_that_see_all_gpus_of_a_node_divide_them(rank, visible, on_node, own):
    environment = slurm(rank, CUDA_VISIBLE_DEVICES=visible, SLURM_GPUS_ON_NODE=on_node)
    assert read_cluster(environment).gpus == own


def test_gpus_that_tasks_cannot_divide_are_an_error():
    environment = slurm(0, CUDA_VISIBLE_DEVICES="0,1,2", SLURM_GPUS_ON_NODE="3")
    with pytest.raises(
        DeviceError, match="a multiple of 4 GPUs, as there are 4 tasks on this node"
    ):
        read_cluster(environment)


def test_single_task_keeps_all_gpus_of_its_node():
    environment = slurm(0, CUDA_VISIBLE_DEVICES="0,1", SLURM_GPUS_ON_NODE="2")
    changes = {"SLURM_STEP_NODELIST": "n9", "SLURM_STEP_TASKS_PER_NODE": "1"}
    assert read_cluster(environment | changes).gpus is None
