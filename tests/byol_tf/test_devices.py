"""What `TF_CONFIG` says, and what is said when it says something else."""

import importlib.util
import json
import os

import pytest
import tensorflow as tf

from byol_tf.devices import Cluster, build_strategy, prepare_environment, read_cluster, set_seeds
from byol_tf.errors import DeviceError

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
    clusters = [
        read(jobs, {"type": kind, "index": index})
        for kind, index in (("chief", 0), ("worker", 0), ("worker", 1))
    ]
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
            'expected "worker", and at most "chief" beside it, in "cluster"; received ps$',
        ),
        (
            {"worker": "10.0.0.1:2222"},
            FIRST,
            'expected "cluster.worker" as a list of "host:port"; received "10.0.0.1:2222"$',
        ),
        (
            {"worker": ["10.0.0.1"]},
            FIRST,
            r'expected "cluster.worker" as a list of "host:port"; received \["10.0.0.1"\]$',
        ),
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
def test_which_part_is_wrong_is_said(jobs, task, message):
    with pytest.raises(DeviceError, match=message):
        read(jobs, task)


def test_cpu_is_one_replica():
    strategy = build_strategy("cpu")
    assert strategy.num_replicas_in_sync == 1
    with strategy.scope():
        assert "CPU" in tf.Variable(1.0).device


def test_auto_finds_the_cpu_where_there_is_nothing_else(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    for name in ("TPU_NAME", "COLAB_TPU_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert build_strategy("auto").num_replicas_in_sync == 1


def test_a_device_lent_to_a_virtual_machine_is_no_tpu_without_its_library(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/vfio/0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("TPU_NAME", "COLAB_TPU_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert build_strategy("auto").num_replicas_in_sync == 1
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "libtpu" or None)
    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", _no_tpu)
    with pytest.raises(DeviceError, match="no TPU answers"):
        build_strategy("auto")


def _no_tpu(tpu):
    raise ValueError("not found")


@pytest.mark.parametrize("name", ["gpu", "mirrored"])
def test_no_gpu_is_said_with_what_to_do(monkeypatch, name):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    with pytest.raises(
        DeviceError, match=f'"{name}" needs a GPU and TensorFlow sees none. Install the extra "gpu"'
    ):
        build_strategy(name)


def test_several_machines_need_their_description(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(
        DeviceError, match='"multi_worker" reads the environment variable TF_CONFIG'
    ):
        build_strategy("multi_worker")


def test_unknown_strategy():
    with pytest.raises(
        ValueError,
        match="""expected "auto", "cpu", "gpu", "mirrored", "multi_worker" or "tpu"; received 'quantum'""",
    ):
        build_strategy("quantum")


def test_a_users_own_environment_wins(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    prepare_environment()
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_seeds_repeat_draws():
    draws = []
    for seed in (3, 3, 4):
        set_seeds(seed, deterministic=False)
        draws.append(float(tf.random.uniform(())))
    assert draws[0] == draws[1] != draws[2]
