"""Row 11: files made to do harm. Each is refused with a reason; nothing of it runs, nothing outside
its folder is opened or changed."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from byol_tf.config.loading import load_config, resolved_json
from byol_tf.models import safe_loading as model_files
from byol_tf.models.from_config import build_config_encoder
from byol_tf.runs.encoders import load_encoder_file
from tests.helpers.waiting import HANG
from tests.reliability.hostile_files import (
    export,
    good_model,
    keras_cases,
    keras_members,
    write_deeds,
    write_file_on_call,
    write_hostile_keras,
    write_hostile_runs,
    write_hostile_saved_models,
    write_zip,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def good(tmp_path) -> Path:
    """The folder with `good.keras` and the SavedModel `good/`."""
    model = good_model()
    model.save(tmp_path / "good.keras")
    model.export(
        tmp_path / "good",
        format="tf_saved_model",
        verbose=False,
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)],
    )
    return tmp_path


def test_every_hostile_file_is_refused_and_nothing_of_it_runs(good, tmp_path_factory, report):
    """With a control: what really does such things is seen."""
    hostile, canary = good / "hostile", good / "canary"
    hostile.mkdir()
    deeds, done = tmp_path_factory.mktemp("deeds"), tmp_path_factory.mktemp("done")
    shows = write_deeds(deeds, done / "canary")
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
    line = [sys.executable, "-m", "tests.reliability.hostile_child", str(good), str(deeds)]
    child = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=HANG)
    assert child.returncode == 0, child.stderr[-3000:]
    printed = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]
    seen = {answer["deed"]: answer["events"] for answer in printed if "deed" in answer}
    assert sorted(path.name for path in done.iterdir()) == ["canary", "made"]
    assert set(seen) == set(shows)
    for name, event in shows.items():
        assert any(one.startswith(event) for one in seen[name]), (name, seen[name])
    answers = [answer for answer in printed if "deed" not in answer]
    as_weights = {f"{name} as encoder.weights": name for name in cases if name.endswith(".keras")}
    assert [answer["name"] for answer in answers] == [*cases, *as_weights]
    for answer in answers:
        assert answer["refused"], f"{answer['name']} was loaded"
        assert answer["refused"].isprintable(), answer
        assert len(answer["refused"]) < 900, answer
        assert answer["events"] == [], answer
    refused = {answer["name"]: answer["refused"] for answer in answers}
    for (
        name,
        of,
    ) in (
        as_weights.items()
    ):  # by the same look into it, not only since none of them holds the layers of a run's encoder
        reason, expected = (refused[each].split("; ", 1)[1] for each in (name, of))
        assert reason[:200] == expected[:200]  # Keras' own texts end with numbers that it drew
    after = {path: path.stat().st_mtime_ns for path in good.rglob("*") if not path.is_symlink()}
    assert after == before, "a file was written or removed"
    report(
        11,
        f"{len(cases)} hostile model files and checkpoints: all refused, nothing run, nothing "
        "outside opened",
        len(cases),
    )
    report(11, "the .keras files among them as encoder.weights: the same", len(as_weights))


def test_without_the_look_into_the_graph_a_saved_model_writes_files(good, monkeypatch):
    """The control: the same file, loaded without what is to keep it from harm."""
    export(good / "evil", write_file_on_call(good / "canary"))
    monkeypatch.setattr("byol_tf.runs.encoders.check_saved_model", lambda path: None)
    model = load_encoder_file(good / "evil")
    model(tf.zeros((1, 8, 8, 3), tf.uint8))
    assert (good / "canary").read_text() == "graph"


@pytest.mark.parametrize("name", ["external-data", "nan-weights"])
def test_without_the_look_into_the_weights_keras_loads_them(good, name):
    """The control: what is refused is in one case what Keras itself takes in safe mode; in the
    other the look is a second one."""
    write_zip(
        good / "evil.keras", keras_cases(good / "canary")[name](keras_members(good / "good.keras"))
    )
    with pytest.raises(model_files.UnsafeModelError):
        model_files.check_keras_file(good / "evil.keras")
    if name == "nan-weights":
        weights = keras.models.load_model(
            good / "evil.keras", compile=False, safe_mode=True
        ).get_weights()
        assert any((array != array).any() for array in weights)
