"""Where it runs, and what is said when it can't."""

import importlib.util
import os

import pytest
import tensorflow as tf

from byol_tf.devices import DeviceError, build_strategy, prepare_environment, set_seeds


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
    with pytest.raises(DeviceError, match=f'"{name}" needs a GPU and TensorFlow sees none. Install the extra "gpu"'):
        build_strategy(name)


def test_several_machines_need_their_description(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(DeviceError, match='"multi_worker" reads the environment variable TF_CONFIG'):
        build_strategy("multi_worker")


def test_unknown_strategy():
    with pytest.raises(ValueError, match="""expected "auto", "cpu", "gpu", "mirrored", "multi_worker" or "tpu"; received 'quantum'"""):
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
