"""Files of a run folder: those written before the first step, and the result."""

import csv
import json
from importlib import metadata

import pytest

from byol_tf.errors import RunFolderError
from byol_tf.runs import folder as run_folder
from byol_tf.runs.files import write_atomically
from byol_tf.runs.folder import RunFolder, read_history

KERAS = metadata.packages_distributions()["keras"][0]  # keras-nightly beside a pre-release
CONFIG = {"name": "small", "training": {"epochs": 3, "batch_size": 64}}


def started(folder: RunFolder, skipped=()) -> RunFolder:
    folder.begin(json.dumps(CONFIG), ["byol", "train", "--config", "x.json"], "f1n9e2", skipped)
    return folder


def test_files_of_a_start(tmp_path):
    skipped = (("a/b.jpg", "truncated"), ('odd, "name".png', "not an image"))
    folder = started(RunFolder(tmp_path / "run"), skipped)
    assert folder.saved_config() == CONFIG
    facts = json.loads(folder.environment.read_text())
    assert facts["command"] == ["byol", "train", "--config", "x.json"]
    assert facts["data_fingerprint"] == "f1n9e2"
    assert {"numpy", KERAS} <= set(facts["packages"])
    assert facts["python"].startswith("3.")
    with folder.skipped.open(newline="") as file:
        assert list(csv.reader(file)) == [["path", "reason"], *map(list, skipped)]
    assert folder.figures.is_dir()


def test_no_skipped_images_no_table(tmp_path):
    assert not started(RunFolder(tmp_path / "run")).skipped.exists()


def test_finished_returns_the_result(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.finished() is None
    write_atomically(folder.result, '{"loss": 1.5}\n')
    assert folder.finished() == {"loss": 1.5}


def test_left_overs_are_removed_and_changed_versions_listed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.begin("{}", [], "", ()) == []
    facts = json.loads(folder.environment.read_text())
    facts["packages"] |= {KERAS: "1.0", "gone": "2.0"}
    folder.environment.write_text(json.dumps(facts))
    (folder.root / ".history.csv.part").write_text("half")
    (folder.export / ".encoder.part").mkdir(parents=True)
    (folder.export / ".encoder.part.keras").write_text("half")
    changed = folder.begin("{}", [], "", (), resumed=True)
    assert changed[0] == "gone: 2.0 when the run was started, absent now"
    assert [line.split(":")[0] for line in changed] == ["gone", KERAS]
    assert not [path for path in folder.root.rglob(".*")]
    changed = folder.begin("{}", [], "", (), resumed=True, precision="mixed_bfloat16")
    assert changed[-1] == "precision: float32 when the run was started, mixed_bfloat16 now"


def test_every_start_is_compared_with_the_first(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin("{}", ["first"], "images", ())
    facts = json.loads(folder.environment.read_text())
    facts["packages"] |= {KERAS: "1.0"}
    folder.environment.write_text(json.dumps(facts))
    for command in ("second", "third"):
        assert [
            line.split(":")[0] for line in folder.begin("{}", [command], "images", (), resumed=True)
        ] == [KERAS]
        now = json.loads(folder.environment.read_text())
        assert now["begun"] == facts
        assert (now["command"], now["packages"][KERAS] != "1.0") == ([command], True)
    assert folder.begin("{}", ["anew"], "images", ()) == []
    assert "begun" not in json.loads(folder.environment.read_text())


def test_restart_removes_the_history(tmp_path):
    folder = started(RunFolder(tmp_path / "run"))
    assert folder.trained_epochs() == 0
    folder.history.write_text("epoch,loss\n0,\n1,2.5\n")
    folder.begin("{}", [], "", (), resumed=True)
    assert folder.trained_epochs() == 1
    started(folder)
    assert not folder.history.exists()
    folder.history.write_text("no\ntable\n")
    with pytest.raises(RunFolderError, match=r"history\.csv: expected the table that a run wrote"):
        folder.trained_epochs()


def test_unwritable_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RunFolderError,
        match=r"expected a folder that can be written; received .*Not a directory",
    ):
        RunFolder(tmp_path / "file" / "run").begin("{}", [], "", ())


def test_result_of_a_moved_folder_has_its_new_paths(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin("{}", [], "", ())
    write_atomically(
        folder.result,
        json.dumps({"loss": 1.5, "run_dir": "old", "export_dir": "old/export/encoder"}),
    )
    moved = RunFolder(folder.root.rename(tmp_path / "moved"))
    assert moved.finished() == {
        "loss": 1.5,
        "run_dir": str(tmp_path / "moved"),
        "export_dir": str(tmp_path / "moved" / "export" / "encoder" / "1"),
    }


def test_damaged_result_is_an_error_that_names_it(tmp_path):
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"result\.json: expected the result that a run wrote"):
        RunFolder(tmp_path).finished()


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"epochs": "two"}',
        '{"steps": null}',
        '{"seconds": NaN}',
        '{"images_per_second": 1e999}',
        '{"test_images": 1e308}',
        '{"leaked_test_images": "x"}',
        '{"skipped_steps": [1]}',
        '{"loss": "x"}',
        '{"system": [1]}',
        '{"probe_split": [1]}',
        '{"supervised_accuracy": "\\u001b[31mX"}',
    ],
)
def test_result_of_other_types_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"result\.json: expected the") as error:
        RunFolder(tmp_path).finished()
    assert str(error.value).isprintable()


def test_cell_of_a_history_that_is_no_finite_number_was_not_measured(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,probe_accuracy\n0,,nan\n1,inf,0.5\n2,0.25,1e300\n")
    assert read_history(path) == [
        {"epoch": 0.0},
        {"epoch": 1.0, "probe_accuracy": 0.5},
        {"epoch": 2.0, "loss": 0.25},
    ]


@pytest.mark.parametrize("epochs", ["nan", "x", "1e300", "1,1", "2,1", "-1"])
def test_history_without_epochs_in_their_order_is_an_error(tmp_path, epochs):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss\n" + "".join(f"{epoch},1\n" for epoch in epochs.split(",")))
    with pytest.raises(ValueError, match=r"history\.csv"):
        read_history(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        '{"packages": [1]}',
        '{"begun": 3}',
        '{"begun": {"packages": "x"}}',
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
)
def test_damaged_environment_does_not_keep_a_run_from_resuming(tmp_path, content):
    folder = started(RunFolder(tmp_path / "run"))
    folder.environment.write_text(content)
    assert folder.begin("{}", ["again"], "images", (), resumed=True) == []
    assert json.loads(folder.environment.read_text())["command"] == ["again"]


@pytest.mark.parametrize("content", [b"\xff", b"a,b\n1,2\n", b"path,reason\na"])
def test_damaged_table_of_skipped_photos_is_removed(tmp_path, content):
    folder = started(RunFolder(tmp_path / "run"), (("a.jpg", "empty"),))
    folder.begin("{}", [], "", (), resumed=True)
    assert "a.jpg" in folder.skipped.read_text()
    folder.skipped.write_bytes(content)
    folder.begin("{}", [], "", (), resumed=True)
    assert not folder.skipped.exists()


def test_each_skipped_photo_is_listed_once_and_a_resumed_run_keeps_the_list(tmp_path):
    folder = started(RunFolder(tmp_path / "run"), (("-a.jpg", "empty"),))
    for path in ("b.jpg", "-a.jpg", "b.jpg"):
        folder.list_skipped(path, "truncated")
    assert folder.count_skipped() == 2
    listed = folder.skipped.read_text()
    assert listed == "path,reason\n./-a.jpg,empty\nb.jpg,truncated\n"
    resumed = RunFolder(folder.root)
    resumed.begin("{}", [], "", (("-a.jpg", "empty"),), resumed=True)
    resumed.list_skipped("b.jpg", "truncated")
    assert (resumed.skipped.read_text(), resumed.count_skipped()) == (listed, 2)
    resumed.begin("{}", [], "", ())  # from the start
    assert not resumed.skipped.exists()


@pytest.mark.parametrize("name", ["figures", "export", "logs"])
def test_run_is_not_written_through_a_link(tmp_path, name):
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    (tmp_path / "mine").mkdir()
    (folder.root / name).symlink_to(tmp_path / "mine")
    with pytest.raises(RunFolderError, match=f"{name}: it is a link"):
        folder.begin("{}", [], "", ())
    assert not list((tmp_path / "mine").iterdir())


def test_skipped_photos_are_not_appended_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "skipped.csv").symlink_to(tmp_path / "mine")
    RunFolder(tmp_path).list_skipped("a.jpg", "truncated")
    assert (tmp_path / "mine").read_text() == "mine"


def test_git_state_is_none_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "__file__", str(tmp_path / "folder.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert run_folder.environment()["git"] is None
