"""Training steps that don't fit into memory, by TensorFlow's own error."""

import json

import pytest
import tensorflow as tf

from byol_tf.config.loading import load_config, resolved_json
from byol_tf.errors import OUT_OF_MEMORY, RunFolderError
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.folder_choice import choose_folder
from byol_tf.train.__main__ import main
from byol_tf.train.experiment import Experiment
from byol_tf.train.out_of_memory import out_of_memory


@pytest.fixture(scope="module")
def error() -> Exception:
    """TensorFlow's own: no machine has 4 exabytes."""
    with pytest.raises(tf.errors.ResourceExhaustedError) as raised:
        tf.zeros((2**30, 2**30))
    return raised.value


def test_text_names_batch_and_remedies(error):
    text = str(out_of_memory(load_config(None, []), error))
    batch, same_run, new_run, *remedies, detail = text.splitlines()
    assert batch == "out of memory: a step on a batch of 128 images of 32 x 32 pixels doesn't fit."
    assert same_run == (
        "  This run can be resumed with training.rematerialize=true (the same numbers, more time)."
    )
    assert new_run == "  A new run (--fresh) can have, to try in this order,"
    keys = [
        "training.gradient_accumulation_steps=2",
        "devices.precision=mixed_bfloat16",
        "training.batch_size",
        "views.size",
    ]
    assert [key in remedy for key, remedy in zip(keys, remedies, strict=True)] == [True] * 4
    assert "OOM" in detail


def test_applied_remedies_are_not_proposed(error):
    applied = [
        "training.gradient_accumulation_steps=4",
        "training.rematerialize=true",
        "devices.precision=mixed_bfloat16",
    ]
    stop = out_of_memory(load_config(None, applied), error)
    text = str(stop)
    assert stop.change is None
    assert "in 4 micro-batches" in text
    assert "training.gradient_accumulation_steps=8" in text
    assert "rematerialize" not in text
    assert "precision" not in text


@pytest.mark.parametrize(
    ("change", "resumes"),
    [
        ("training.rematerialize=true", True),
        ("training.gradient_accumulation_steps=2", False),
        ("devices.precision=mixed_bfloat16", False),
        ("training.batch_size=64", False),
        ("views.size=16", False),
    ],
)
def test_run_resumes_with_the_proposed_change_only(tmp_path, change, resumes):
    before, now = (
        json.loads(resolved_json(load_config(None, overrides))) for overrides in ([], [change])
    )
    RunFolder(tmp_path).begin(json.dumps(before), [], "", ())
    if resumes:
        assert choose_folder(now, str(tmp_path), False).root == tmp_path
    else:
        with pytest.raises(RunFolderError, match=change.split("=")[0]):
            choose_folder(now, str(tmp_path), False)


def test_command_exits_with_its_code_and_prints_how_to_resume(error, monkeypatch, tmp_path, capsys):
    """The error is made up here: on a CPU the system kills a process before TensorFlow raises."""

    def fail(*_):
        raise error

    monkeypatch.setattr(Experiment, "_run_chief", fail)
    settings = [
        "--set",
        "data.pretrain_images=128",
        "--set",
        "devices.strategy=cpu",
        "--set",
        "training.rematerialize=false",
    ]
    assert main(["--config", "demo", *settings, "--run-dir", str(tmp_path)]) == OUT_OF_MEMORY == 12
    errors = capsys.readouterr().err
    assert "stopped: out of memory: a step on a batch of 128 images" in errors
    assert errors.splitlines()[-1].endswith(
        f"--set training.rematerialize=true --run-dir {tmp_path}"
    )
