"""Row 11: malicious model files are refused with a reason, without running or opening anything."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from byol_tf.config.loading import load_config, resolved_json
from byol_tf.models import safe_loading
from byol_tf.models.from_config import build_config_encoder
from byol_tf.runs.encoders import load_encoder_file
from tests.helpers.waiting import HANG
from tests.reliability.hostile_files import (
    export,
    good_model,
    keras_cases,
    keras_members,
    write_controls,
    write_file_on_call,
    write_hostile_keras,
    write_hostile_runs,
    write_hostile_saved_models,
    write_zip,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def good(tmp_path) -> Path:
    """Returns a folder with `good.keras` and the SavedModel `good/`."""
    model = good_model()
    model.save(tmp_path / "good.keras")
    model.export(
        tmp_path / "good",
        format="tf_saved_model",
        verbose=False,
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)],
    )
    return tmp_path


def test_hostile_files_are_refused_and_nothing_runs(good, tmp_path_factory, report):
    """With controls: pickles that do such things are observed."""
    hostile, canary = good / "hostile", good / "canary"
    hostile.mkdir()
    controls, written = tmp_path_factory.mktemp("controls"), tmp_path_factory.mktemp("written")
    expected_events = write_controls(controls, written / "canary")
    write_hostile_keras(hostile, good / "good.keras", canary)
    write_hostile_saved_models(hostile, good / "good", canary)
    config = load_config("demo", ["encoder.width=0.25"])
    arrays = {
        f"online/encoder/{number:03d}": array
        for number, array in enumerate(build_config_encoder(config).get_weights())
    }
    write_hostile_runs(hostile, json.loads(resolved_json(config)), arrays, canary)
    cases = sorted(path.name for path in hostile.iterdir())
    before = {path: path.stat().st_mtime_ns for path in good.rglob("*") if not path.is_symlink()}
    line = [sys.executable, "-m", "tests.reliability.hostile_child", str(good), str(controls)]
    temporary = tmp_path_factory.mktemp("temporary")
    child = subprocess.run(
        line,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    assert child.returncode == 0, child.stderr[-3000:]
    printed = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]
    observed = {answer["control"]: answer["events"] for answer in printed if "control" in answer}
    assert sorted(path.name for path in written.iterdir()) == ["canary", "made"]
    assert set(observed) == set(expected_events)
    for name, event in expected_events.items():
        assert any(line.startswith(event) for line in observed[name]), (name, observed[name])
    answers = [answer for answer in printed if "control" not in answer]
    as_weights = {f"{name} as encoder.weights": name for name in cases if name.endswith(".keras")}
    assert [answer["name"] for answer in answers] == [*cases, *as_weights]
    for answer in answers:
        assert answer["refused"], f"{answer['name']} was loaded"
        assert answer["refused"].isprintable(), answer
        assert len(answer["refused"]) < 900, answer
        assert answer["events"] == [], answer
        assert answer["megabytes"] < 400, answer
    assert list(temporary.iterdir()) == []
    refused = {answer["name"]: answer["refused"] for answer in answers}
    # By the same check, and not only because none has the layers of a run's encoder.
    for name, case in as_weights.items():
        reason, expected = (refused[key].split("; ", 1)[1] for key in (name, case))
        assert reason[:200] == expected[:200]  # Keras' own messages end with random numbers
    after = {path: path.stat().st_mtime_ns for path in good.rglob("*") if not path.is_symlink()}
    assert after == before, "a file was written or removed"
    report(
        11,
        f"{len(cases)} hostile model files and checkpoints: all refused, nothing run, nothing "
        "outside opened",
        len(cases),
    )
    report(11, "the .keras files among them as encoder.weights: the same", len(as_weights))


def test_saved_model_writes_a_file_without_the_graph_check(good, monkeypatch):
    """The control: the same file, loaded without the check."""
    export(good / "evil", write_file_on_call(good / "canary"))
    monkeypatch.setattr("byol_tf.runs.encoders.checked_saved_model", contextlib.nullcontext)
    model = load_encoder_file(good / "evil")
    model(tf.zeros((1, 8, 8, 3), tf.uint8))
    assert (good / "canary").read_text() == "graph"


def test_functions_that_write_files_are_not_loaded(good):
    """TensorFlow adds some to each SavedModel; there are many ways to call them."""

    def operations(folder: Path) -> set[str]:
        content = saved_model_pb2.SavedModel()
        content.ParseFromString((folder / "saved_model.pb").read_bytes())
        functions = content.meta_graphs[0].graph_def.library.function
        return {node.op for function in functions for node in function.node_def}

    assert {"SaveV2", "RestoreV2"} <= operations(good / "good")
    with safe_loading.checked_saved_model(good / "good") as copy:
        assert operations(copy) <= safe_loading.OPERATIONS


@pytest.mark.parametrize("name", ["external-data", "nan-weights"])
def test_keras_loads_weights_that_the_check_refuses(good, name):
    """The control: Keras' safe mode loads NaN weights; external data it refuses itself."""
    write_zip(
        good / "evil.keras", keras_cases(good / "canary")[name](keras_members(good / "good.keras"))
    )
    with pytest.raises(safe_loading.UnsafeModelError):
        safe_loading.check_keras_file(good / "evil.keras")
    if name == "nan-weights":
        weights = keras.models.load_model(
            good / "evil.keras", compile=False, safe_mode=True
        ).get_weights()
        assert any((array != array).any() for array in weights)
