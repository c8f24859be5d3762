"""Tests of devices: strategies, environment and seeds."""

import importlib.util
import os
import pwd
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from byol_tf import devices
from byol_tf.devices import (
    build_strategy,
    check_keras_settings,
    cpu_bfloat16,
    has_fast_bfloat16,
    prepare_environment,
    run_precision,
    set_seeds,
)
from byol_tf.errors import DeviceError


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


def test_multi_worker_needs_connected_workers():
    with pytest.raises(
        DeviceError, match=r'"multi_worker" needs workers that are connected: give Experiment .*'
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
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # which another program of the user's needs
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


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("fpu avx2 fma", None),
        ("avx512f avx512_bf16 amx_bf16", "amx_bf16"),
        ("avx512_bf16", "avx512_bf16"),
    ],
)
def test_instructions_for_bfloat16_are_found(flags, name, monkeypatch, tmp_path):
    text = f"processor : 0\nflags\t\t: {flags}\nbugs : none\n\nprocessor : 1\n"
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: text)
    assert cpu_bfloat16() == name


def test_automatic_precision_is_bfloat16_where_all_devices_have_it(monkeypatch):
    gpus: list[tuple[int, int]] = []
    monkeypatch.setattr(devices, "_has_tpu", lambda: False)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": gpu}
    )
    for instructions, precision in ((None, "float32"), ("amx_bf16", "mixed_bfloat16")):
        monkeypatch.setattr(devices, "cpu_bfloat16", lambda name=instructions: name)
        gpus[:] = []
        assert run_precision("auto", "auto") == run_precision("auto", "cpu") == precision
        gpus[:] = [(8, 0), (9, 0)]
        assert run_precision("auto", "mirrored") == "mixed_bfloat16"
        assert run_precision("auto", "cpu") == precision
        gpus[:] = [(8, 0), (7, 5)]
        assert run_precision("auto", "auto") == "float32"
    assert has_fast_bfloat16("tpu")
    monkeypatch.setattr(devices, "_has_tpu", lambda: True)
    assert has_fast_bfloat16()
    assert run_precision("mixed_float16", "auto") == "mixed_float16"


def test_same_seed_gives_same_numbers():
    samples = []
    for seed in (3, 3, 4):
        set_seeds(seed, deterministic=False)
        samples.append(float(tf.random.uniform(())))
    assert samples[0] == samples[1] != samples[2]


def test_other_backend_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(DeviceError, match=r"needs Keras' TensorFlow backend; received .*=jax"):
        check_keras_settings()


@pytest.mark.parametrize(
    ("setting", "other", "expected"),
    [("image_data_format", "channels_first", "channels_last"), ("floatx", "float16", "float32")],
)
def test_other_settings_of_keras_are_refused(setting, other, expected):
    """As they stand in keras.json: layers would be built for other images or weights."""
    change = getattr(keras.config, f"set_{setting}")
    change(other)
    try:
        with pytest.raises(DeviceError, match=rf"{setting}: byol_tf needs {expected} .* {other}"):
            check_keras_settings()
    finally:
        change(expected)
    check_keras_settings()
