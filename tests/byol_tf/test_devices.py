"""Tests of devices: cluster descriptions, strategies, environment and seeds."""

import importlib.util
import json
import os
import pwd

import pytest
import tensorflow as tf

from byol_tf.devices import Cluster, build_strategy, prepare_environment, read_cluster, set_seeds
from byol_tf.errors import DeviceError

TWO = ["10.0.0.1:2222", "10.0.0.2:2222"]


def read(jobs, task) -> Cluster:
    return read_cluster({"TF_CONFIG": json.dumps({"cluster": jobs, "task": task})})


def test_first_worker_is_the_chief():
    clusters = [read({"worker": TWO}, {"type": "worker", "index": index}) for index in (0, 1)]
    assert [cluster.index for cluster in clusters] == [0, 1]
    assert [cluster.chief for cluster in clusters] == [True, False]
    assert clusters[0].addresses == clusters[1].addresses == tuple(TWO)


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
        (None, r"with its own index on each; received none$"),
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


def test_cpu_is_one_replica():
    strategy = build_strategy("cpu")
    assert strategy.num_replicas_in_sync == 1
    with strategy.scope():
        assert "CPU" in tf.Variable(1.0).device


def test_auto_falls_back_to_the_cpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda device_type=None: [])
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    for name in ("TPU_NAME", "COLAB_TPU_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert build_strategy("auto").num_replicas_in_sync == 1


def test_vfio_device_without_libtpu_is_no_tpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda device_type=None: [])
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
def test_missing_gpu_error_names_the_extra(monkeypatch, name):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda device_type=None: [])
    with pytest.raises(
        DeviceError, match=f'"{name}" needs a GPU and TensorFlow sees none. Install the extra "gpu"'
    ):
        build_strategy(name)


def test_multi_worker_needs_tf_config(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(
        DeviceError, match='"multi_worker" reads the environment variable TF_CONFIG'
    ):
        build_strategy("multi_worker")


def test_unknown_strategy_is_an_error():
    with pytest.raises(
        ValueError,
        match="""expected "auto", "cpu", "gpu", "mirrored", "multi_worker" or "tpu"; received 'quantum'""",
    ):
        build_strategy("quantum")


def test_environment_of_the_user_wins(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    prepare_environment()
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_user_without_a_home_gets_one(monkeypatch):
    """As in a container: libraries that look for it would fail."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setenv("HOME", "")  # restored afterwards
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert os.path.expanduser("~") == "~"
    prepare_environment()
    assert os.path.isdir(os.path.expanduser("~"))


def test_same_seed_gives_same_numbers():
    samples = []
    for seed in (3, 3, 4):
        set_seeds(seed, deterministic=False)
        samples.append(float(tf.random.uniform(())))
    assert samples[0] == samples[1] != samples[2]
