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
EIGHT_OF_THIRTY = LEARNED.replace("0.2,0.1", "0.23333,0.2").replace("0.6,0.5", "0.26667,0.2")


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
            {"supervised_accuracy": 0.4, "test_images": 1000},
            [
                "The encoder has learned: linear probe 60.0%, untrained 20.0% (+40.0 points, 95% "
                "interval +36.0 to +43.8); nearest neighbours 50.0%, untrained 10.0% (",
                "The linear probe is better than the same network trained from scratch on the same "
                "labels (40.0%): +20.0 points, 95% interval +15.7 to +24.2.",
                "There is no sign of collapse (std of projections 0.70, where 1 is scattered "
                "and 0 collapsed; effective rank 30.0).",
            ],
        ),
        (
            LEARNED,
            {"supervised_accuracy": 0.65, "test_images": 1000},
            [
                "The linear probe is worse than the same network trained from scratch",
                ": -5.0 points",
            ],
        ),
        (
            LEARNED,
            {"supervised_accuracy": 0.605, "test_images": 1000},
            [
                "Whether it is better than the same network trained from scratch on the same labels "
                "(60.5%) can't be told with 1,000 test images."
            ],
        ),
        (
            EIGHT_OF_THIRTY,
            {"test_images": 30},
            [
                "Whether the encoder has learned can't be told with 30 test images: linear probe "
                "26.7%, untrained 23.3% (+3.3 points, 95% interval -18.2 to +24.5); nearest"
            ],
        ),
        (
            EIGHT_OF_THIRTY,
            None,
            ["Whether the encoder has learned can't be told without the number of test images"],
        ),
        (
            LEARNED.replace("0.6,0.5", "0.15,0.1"),
            {"test_images": 1000},
            ["Training has made the encoder worse: linear probe 15.0%, untrained 20.0% (-5.0"],
        ),
        (
            LEARNED.replace("0.6,0.5", "0.15,0.5"),
            {"test_images": 1000},
            ["The measures disagree on whether the encoder has learned: linear probe 15.0%"],
        ),
        (
            LEARNED.replace("0.6,0.5", "0.2,0.5"),
            {"test_images": 1000},
            ["The encoder has learned: linear probe 20.0%, untrained 20.0% (+0.0 points"],
        ),
        (
            LEARNED.replace("0.7,0.3,30", "0.01,0.999,3"),
            {},
            ["It has collapsed: all images get nearly the same projection", "To try: "],
        ),
        (
            LEARNED.replace("0.1,0.5,0.5,50", "0.1,0.0005,0,50").replace("0.7,0.3", "0.0001,1"),
            {"test_images": 1000},
            [
                "Whether it has collapsed can't be told: different images have nearly the same "
                "projection (std 0.0001), but so they had before training (0.0005)."
            ],
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
    facts = read_facts(
        run(tmp_path, result={"test_images": 9}, overrides=["encoder.weights=encoder.keras"])
    )
    assert facts.start == "at its start"
    assert "linear probe 60.0%, at its start 20.0%" in verdict(facts)[0]


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
        *(
            (
                lambda folder, epoch=epoch: folder.result.write_text(
                    f'{{"exported_epoch": {epoch}}}'
                ),
                f"result.json: expected an exported_epoch that history.csv has; received {epoch}",
            )
            for epoch in (-5, 0, 1.5)
        ),
    ],
)
def test_missing_or_broken_file_is_an_error(tmp_path, damage, message):
    folder = run(tmp_path)
    damage(folder)
    with pytest.raises(RunFolderError, match=message):
        read_facts(folder)
