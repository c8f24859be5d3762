"""Facts and verdict of a run, from hand-written files."""

import json

import pytest

from byol_tf.config.diff import recipe_differences
from byol_tf.config.loading import load_config, resolved_json
from byol_tf.errors import RunFolderError
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.summary import read_facts, verdict

HEAD = "epoch,loss,probe_accuracy,knn_accuracy,projection_std,projection_cosine,effective_rank\n"
LEARNED = HEAD + "0,,0.2,0.1,0.5,0.5,50\n1,2,,,0.6,0.4,40\n2,1.5,0.6,0.5,0.7,0.3,30\n"


def run(
    tmp_path, history: str = LEARNED, result: dict | None = None, skipped: str = "", overrides=()
) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    folder.config.write_text(resolved_json(load_config("demo", overrides)))
    folder.history.write_text(history)
    folder.environment.write_text(
        '{"python": "3.11", "command": ["python", "-m", "byol_tf.train"]}'
    )
    if result is not None:
        folder.result.write_text(json.dumps(result))
    if skipped:
        folder.skipped.write_text(f"path,reason\n{skipped}")
    return folder


@pytest.mark.parametrize(
    ("history", "result", "sentences"),
    [
        (
            LEARNED,
            {"supervised_accuracy": 0.4},
            [
                "The encoder has learned: a linear classifier on the frozen encoder is right for "
                "60.0% of the test images, 40.0 points "
                "more than on the untrained network (20.0%).",
                "That is 20.0 points more than the same network trained from scratch on the same "
                "labels (40.0%).",
                "There is no sign of collapse (std of projections 0.70, where 1 is scattered "
                "and 0 collapsed; effective rank 30.0).",
            ],
        ),
        (
            LEARNED,
            {"supervised_accuracy": 0.65},
            ["trained from scratch on the same labels does better, by 5.0 points (65.0%)."],
        ),
        (
            LEARNED,
            {"supervised_accuracy": 0.605},
            [
                "The same network trained from scratch on the same labels does about as well "
                "(60.5%)."
            ],
        ),
        (
            LEARNED.replace("0.6,0.5", "0.205,0.5"),
            {},
            [
                "The encoder has gained next to nothing",
                "for 20.5% of the test images, and for 20.0% on the untrained network; a "
                "difference of less than 3.6 points",
            ],
        ),
        (
            LEARNED.replace("0.6,0.5", "0.15,0.5"),
            {},
            [
                "Training has made the encoder worse",
                "5.0 points less than on the untrained network",
            ],
        ),
        (
            LEARNED.replace("0.7,0.3,30", "0.01,0.999,3"),
            {},
            ["It has collapsed: all images get nearly the same projection", "To try: "],
        ),
        (
            LEARNED.replace("0.2,0.1", ",").replace("0.6,0.5", ","),
            {},
            ["There are no labelled images, so nothing here says how good"],
        ),
        (
            LEARNED,
            {"skipped_steps": 3},
            ["3 steps had numbers that weren't finite and changed nothing."],
        ),
        (
            LEARNED,
            {"leaked_test_images": 1},
            ["1 test photo is also among the photos to learn from, as exact copies"],
        ),
        (LEARNED, None, ["The run isn't finished: 2 of 24 epochs are done."]),
    ],
)
def test_verdict_follows_from_the_facts(tmp_path, history, result, sentences):
    text = " ".join(verdict(read_facts(run(tmp_path, history, result))))
    for sentence in sentences:
        assert sentence in text


def test_skipped_photos_are_counted(tmp_path):
    facts = read_facts(run(tmp_path, result={}, skipped="a.jpg,cut short\n"))
    assert facts.skipped == (("a.jpg", "cut short"),)
    assert verdict(facts)[-1] == "1 photo couldn't be read and was skipped."


def test_start_from_other_weights_is_named(tmp_path):
    facts = read_facts(run(tmp_path, result={}, overrides=["encoder.weights=encoder.keras"]))
    assert facts.start == "at its start"
    assert "more than on the network it started from (20.0%)" in verdict(facts)[0]


def test_differences_from_the_recipe_are_listed():
    config = load_config("demo", ["tau.base=0.9", "run.root=elsewhere", "training.epochs=3"])
    assert recipe_differences(config) == (
        "configs/demo.json",
        [("tau.base", "0.99", "0.9"), ("training.epochs", "24", "3")],
    )
    assert recipe_differences(load_config("demo")) == ("configs/demo.json", [])
    name, differing = recipe_differences(load_config("demo", ["name=mine"]))
    assert name == "the defaults"
    assert ("tau.base", "0.996", "0.99") in differing
    assert "training.batch_size" not in [key for key, *_ in differing]  # it has no default


@pytest.mark.parametrize("local_recipe", ["edited", "broken"])
def test_recipe_is_the_packaged_one(tmp_path, monkeypatch, local_recipe):
    """A config that is an edited copy of a recipe, under its name, isn't compared with itself."""
    monkeypatch.chdir(tmp_path)
    edited = load_config("demo", ["tau.base=0.9"])
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.json").write_text(
        resolved_json(edited) if local_recipe == "edited" else "{"
    )
    assert recipe_differences(edited) == ("configs/demo.json", [("tau.base", "0.99", "0.9")])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: folder.config.unlink(),
            "expected a run folder, with a config.json; found none there",
        ),
        (lambda folder: folder.history.unlink(), "expected the files that a run writes; received"),
        (
            lambda folder: folder.environment.write_text("{"),
            "expected the files that a run writes; received",
        ),
        (
            lambda folder: folder.environment.write_text('{"command": [1, 2]}'),
            "environment.json: expected the command of a run",
        ),
        (
            lambda folder: folder.history.write_text("epoch,loss\n0,1,2,3\n"),
            "history.csv: expected 2 cells in row 1",
        ),
        (
            lambda folder: folder.history.write_text("epoch,loss\n0,abc\n"),
            "history.csv: could not convert string to float",
        ),
        (
            lambda folder: folder.history.write_text(LEARNED[:-2]),
            "history.csv: its last line is cut off",
        ),
        (
            lambda folder: folder.skipped.write_text("a,b\n1,2\n"),
            "skipped.csv: expected the column path",
        ),
    ],
)
def test_missing_or_broken_file_is_an_error(tmp_path, damage, message):
    folder = run(tmp_path)
    damage(folder)
    with pytest.raises(RunFolderError, match=message):
        read_facts(folder)
