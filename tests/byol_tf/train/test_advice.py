"""What is said where memory doesn't suffice, by TensorFlow's own error."""

import json

import pytest
import tensorflow as tf

from byol_tf.config.loading import load_config, resolved_json
from byol_tf.errors import OUT_OF_MEMORY, RunFolderError
from byol_tf.runs.folder import RunFolder, choose_folder
from byol_tf.train.__main__ import main
from byol_tf.train.advice import out_of_memory, remedies
from byol_tf.train.experiment import Experiment


@pytest.fixture(scope="module")
def error() -> Exception:
    """TensorFlow's own: no machine has 4 exabytes."""
    with pytest.raises(tf.errors.ResourceExhaustedError) as raised:
        tf.zeros((2**30, 2**30))
    return raised.value


def test_it_names_the_batch_what_goes_on_and_what_begins_anew(error):
    first, same, anew, *ways, detail = str(out_of_memory(load_config(None, []), error)).splitlines()
    assert first == "out of memory: a step on a batch of 128 images of 32 x 32 pixels doesn't fit."
    assert (
        same == "  This run goes on with training.rematerialize=true (the same numbers, more time)."
    )
    assert anew == "  A run that begins anew (--fresh) may have, to try in this order,"
    keys = [
        "training.gradient_accumulation_steps=2",
        "devices.precision=mixed_bfloat16",
        "training.batch_size",
        "views.size",
    ]
    assert [key in way for key, way in zip(keys, ways, strict=True)] == [True] * 4
    assert "OOM" in detail


@pytest.mark.parametrize(
    ("change", "goes_on"),
    [
        ("training.rematerialize=true", True),
        ("training.gradient_accumulation_steps=2", False),
        ("devices.precision=mixed_bfloat16", False),
        ("training.batch_size=64", False),
        ("views.size=16", False),
    ],
)
def test_a_run_goes_on_with_what_it_says_and_with_nothing_else(tmp_path, change, goes_on):
    began, now = (
        json.loads(resolved_json(load_config(None, overrides))) for overrides in ([], [change])
    )
    RunFolder(tmp_path).begin(json.dumps(began), [], "", ())
    if goes_on:
        assert choose_folder(now, str(tmp_path), False).root == tmp_path
    else:
        with pytest.raises(RunFolderError, match=change.split("=")[0]):
            choose_folder(now, str(tmp_path), False)


def test_a_run_that_meets_it_stops_with_a_code_for_it_and_says_how_it_goes_on(
    error, monkeypatch, tmp_path, capsys
):
    """The error comes from nowhere here: on a CPU the system ends a process before TensorFlow can
    say so."""

    def fit(*_):
        raise error

    monkeypatch.setattr(Experiment, "_run", fit)
    settings = [
        "--set",
        "data.pretrain_images=128",
        "--set",
        "devices.strategy=cpu",
        "--set",
        "training.rematerialize=false",
    ]
    assert main(["--config", "demo", *settings, "--run-dir", str(tmp_path)]) == OUT_OF_MEMORY == 12
    said = capsys.readouterr().err
    assert "stopped: out of memory: a step on a batch of 128 images" in said
    assert said.splitlines()[-1].endswith(f"--set training.rematerialize=true --run-dir {tmp_path}")


def test_what_is_done_already_is_not_proposed(error):
    done = [
        "training.gradient_accumulation_steps=4",
        "training.rematerialize=true",
        "devices.precision=mixed_bfloat16",
    ]
    stop = out_of_memory(load_config(None, done), error)
    text = str(stop)
    assert stop.change is None
    assert "in 4 parts" in text
    assert "training.gradient_accumulation_steps=8" in text
    assert "rematerialize" not in text
    assert "precision" not in text


SMALLER = "photos made smaller once (data.image_size with data.cache=memory)"


@pytest.mark.parametrize(
    ("recipe", "changes", "words"),
    [
        ("demo", (), "views.engine=fused"),
        ("demo", ("views.engine=fused",), ""),
        ("demo", ("views.engine=fused", "views.placement=host"), "views.placement=step"),
        ("few-photos", (), ""),
        ("few-photos", ("data.cache=none",), SMALLER),
        ("imagenet-300", ("views.engine=keras_cv",), f"views.engine=fused, or {SMALLER}"),
    ],
)
def test_nothing_is_named_that_the_config_has_already(recipe, changes, words):
    assert remedies(load_config(recipe, changes)) == words
