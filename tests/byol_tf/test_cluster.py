"""What `TF_CONFIG` says, and what is said when it says something else."""

import json
import time

import pytest

from byol_tf.cluster import Cluster, DeviceError, awaited, read_cluster
from byol_tf.heartbeat import LOST

TWO = ["10.0.0.1:2222", "10.0.0.2:2222"]


def read(jobs, task) -> Cluster:
    return read_cluster({"TF_CONFIG": json.dumps({"cluster": jobs, "task": task})})


def test_the_first_worker_is_the_chief():
    clusters = [read({"worker": TWO}, {"type": "worker", "index": index}) for index in (0, 1)]
    assert [cluster.index for cluster in clusters] == [0, 1]
    assert [cluster.chief for cluster in clusters] == [True, False]
    assert clusters[0].addresses == clusters[1].addresses == tuple(TWO)


def test_a_chief_of_its_own_stands_before_the_workers():
    jobs = {"chief": ["10.0.0.9:1"], "worker": TWO}
    clusters = [read(jobs, {"type": kind, "index": index}) for kind, index in (("chief", 0), ("worker", 0), ("worker", 1))]
    assert [cluster.index for cluster in clusters] == [0, 1, 2]
    assert clusters[2].addresses == ("10.0.0.9:1", *TWO)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"with its own index on each; received none$"),
        ("", "received an empty one$"),
        ("worker 0", "received something that is no JSON"),
        ("[]", r"expected an object; received \[\]$"),
        ("{}", 'expected "cluster" as an object; received null$'),
    ],
)
def test_what_is_no_description_of_a_cluster(text, message):
    with pytest.raises(DeviceError, match=message) as caught:
        read_cluster({} if text is None else {"TF_CONFIG": text})
    assert str(caught.value).startswith('devices.strategy: "multi_worker" reads the environment variable TF_CONFIG')


FIRST = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("jobs", "task", "message"),
    [
        ({}, FIRST, 'expected at least one "host:port" in "cluster.worker"'),
        ({"worker": TWO, "ps": TWO}, FIRST, 'expected "worker", and at most "chief" beside it, in "cluster"; received ps$'),
        ({"worker": "10.0.0.1:2222"}, FIRST, 'expected "cluster.worker" as a list of "host:port"; received "10.0.0.1:2222"$'),
        ({"worker": ["10.0.0.1"]}, FIRST, r'expected "cluster.worker" as a list of "host:port"; received \["10.0.0.1"\]$'),
        ({"worker": [TWO[0], TWO[0]]}, FIRST, 'expected another "host:port" for each process'),
        ({"chief": TWO, "worker": []}, FIRST, 'at most one in "cluster.chief"'),
        ({"worker": TWO}, None, 'expected "task" as an object; received null$'),
        ({"worker": TWO}, {"type": "evaluator", "index": 0}, 'expected "task.type" as one of "worker"; received "evaluator"$'),
        ({"worker": TWO}, {"type": "worker", "index": 2}, 'expected "task.index" from 0 to 1, as "cluster.worker" lists 2; received 2$'),
        ({"worker": TWO}, {"type": "worker", "index": -1}, 'expected "task.index" from 0 to 1, as "cluster.worker" lists 2; received -1$'),
        ({"worker": TWO}, {"type": "worker", "index": "0"}, 'expected "task.index" from 0 to 1, .* received "0"$'),
        ({"worker": TWO}, {"type": "worker"}, 'expected "task.index" from 0 to 1, .* received null$'),
    ],
)
def test_which_part_is_wrong_is_said(jobs, task, message):
    with pytest.raises(DeviceError, match=message):
        read(jobs, task)


def test_those_who_wait_for_the_others_say_so_and_end_at_the_limit(capfd):
    ended = []
    with awaited(Cluster(tuple(TWO), 1), limit=0.6, reminder=0.3, end=ended.append):
        time.sleep(0.75)
    first, last = capfd.readouterr().err.split("\n\n")[:2]
    assert first.strip() == "machine 2 of 2 has waited 0.3 s for 10.0.0.1:2222; ends at 0.6 s"
    assert last.strip() == "machine 2 of 2 has waited 0.6 s for 10.0.0.1:2222; ended. Start all machines again"
    assert ended == [LOST]
    time.sleep(0.5)
    assert capfd.readouterr().err == ""


def test_those_who_have_met_say_nothing(capfd):
    with awaited(Cluster(tuple(TWO), 0), limit=0.4, reminder=0.2, end=pytest.fail):
        pass
    time.sleep(0.5)
    assert capfd.readouterr().err == ""
