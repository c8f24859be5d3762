"""Which folder a command goes on in, and what is written there before the first step."""

import csv
import datetime
import json
from pathlib import Path

import pytest

from byol_tf.errors import RunFolderError
from byol_tf.runs import folder as run_folder
from byol_tf.runs.files import write_atomically
from byol_tf.runs.folder import RunFolder, choose_folder


@pytest.fixture(autouse=True)
def today(monkeypatch):
    """It is 21 November 2026."""

    class Date(datetime.date):
        @classmethod
        def today(cls):
            return cls(2026, 11, 21)

    monkeypatch.setattr(run_folder.datetime, "date", Date)


def config(root: Path, name: str = "small", **training) -> dict:
    return {
        "name": name,
        "about": "a note",
        "training": {"epochs": 3, "batch_size": 64} | training,
        "objective": {"target": "ema"},
        "predictor": {"schedule": None},
        "tau": {"schedule": "cosine"},
        "optimizer": {"schedule": "cosine"},
        "views": {"size": 32, "first": {"crop_area": [0.4, 1.0]}},
        "run": {"root": str(root)},
    }


def begun(folder: RunFolder, of: dict, skipped=()) -> RunFolder:
    folder.begin(json.dumps(of), ["byol-train", "--config", "x.json"], "f1n9e2", skipped)
    return folder


class TestWithoutRunDir:
    def test_the_first_is_numbered_1_and_choosing_touches_nothing(self, tmp_path):
        folder = choose_folder(config(tmp_path / "runs"), None, False)
        assert folder.root == tmp_path / "runs" / "small-2026-11-21-1"
        assert not (tmp_path / "runs").exists()

    def test_the_same_config_goes_on_in_the_newest_folder(self, tmp_path):
        same = config(tmp_path)
        for name in ("small-2026-11-20-1", "small-2026-11-21-9", "small-2026-11-21-10"):
            begun(RunFolder(tmp_path / name), same)
        begun(RunFolder(tmp_path / "small-2026-11-21-11"), config(tmp_path, epochs=4))
        assert choose_folder(same, None, False).root.name == "small-2026-11-21-10"

    def test_what_changes_nothing_learned_makes_no_new_folder(self, tmp_path):
        old = begun(choose_folder(config(tmp_path), None, False), config(tmp_path))
        changed = config(tmp_path) | {
            "about": "another note",
            "run": {"root": str(tmp_path), "keep_checkpoints": 9},
            "$schema": "x",
        }
        assert choose_folder(changed, None, False).root == old.root

    def test_another_config_gets_the_next_number(self, tmp_path):
        begun(choose_folder(config(tmp_path), None, False), config(tmp_path))
        assert (
            choose_folder(config(tmp_path, epochs=4), None, False).root.name == "small-2026-11-21-2"
        )

    def test_a_run_that_another_config_leaves_unfinished_is_named_with_what_differs(self, tmp_path):
        said = []
        begun(choose_folder(config(tmp_path), None, False), config(tmp_path))
        choose_folder(config(tmp_path, epochs=4), None, False, said.append)
        assert said[0].startswith(
            f"{tmp_path / 'small-2026-11-21-1'} isn't finished, and was begun with another config"
        )
        assert said[1:] == ["  training.epochs: 3 there, 4 now"]
        write_atomically(tmp_path / "small-2026-11-21-1" / "result.json", "{}")
        choose_folder(config(tmp_path, epochs=4), None, False, pytest.fail)

    def test_numbers_start_anew_each_day_and_are_never_used_twice(self, tmp_path):
        for name in ("small-2026-11-20-7", "small-2026-11-21-2", "small-2026-11-21-10"):
            (tmp_path / name).mkdir(parents=True)
        assert choose_folder(config(tmp_path), None, False).root.name == "small-2026-11-21-11"

    def test_fresh_is_a_new_folder_in_any_case(self, tmp_path):
        begun(choose_folder(config(tmp_path), None, False), config(tmp_path))
        assert choose_folder(config(tmp_path), None, True).root.name == "small-2026-11-21-2"

    def test_names_that_begin_alike_are_not_mixed_up(self, tmp_path):
        begun(RunFolder(tmp_path / "small-photos-2026-11-21-5"), config(tmp_path))
        begun(RunFolder(tmp_path / "small-2026-11-21-5-copy"), config(tmp_path))
        assert choose_folder(config(tmp_path), None, False).root.name == "small-2026-11-21-1"
        odd = config(tmp_path, name="a+b.")
        begun(RunFolder(tmp_path / "a+b.-2026-11-21-3"), odd)
        assert choose_folder(odd, None, False).root.name == "a+b.-2026-11-21-3"


class TestWithRunDir:
    def test_a_new_or_empty_folder_is_taken(self, tmp_path):
        assert (
            choose_folder(config(tmp_path), str(tmp_path / "mine"), False).root == tmp_path / "mine"
        )
        (tmp_path / "mine").mkdir()
        assert (
            choose_folder(config(tmp_path), str(tmp_path / "mine"), True).root == tmp_path / "mine"
        )

    def test_a_run_of_the_same_config_goes_on(self, tmp_path):
        begun(RunFolder(tmp_path / "mine"), config(tmp_path))
        assert (
            choose_folder(config(tmp_path / "elsewhere"), str(tmp_path / "mine"), False).root
            == tmp_path / "mine"
        )

    def test_each_differing_key_is_listed(self, tmp_path):
        there = config(tmp_path) | {"seed": 0}
        there["views"]["first"]["crop_area"] = [0.2, 1.0]
        begun(RunFolder(tmp_path / "mine"), there)
        with pytest.raises(RunFolderError) as raised:
            choose_folder(config(tmp_path, epochs=9), str(tmp_path / "mine"), False)
        lines = str(raised.value).splitlines()
        assert [line.strip() for line in lines if line.startswith("  ")] == [
            "seed: 0 there, absent now",
            "training.epochs: 3 there, 9 now",
            "views.first.crop_area: [0.2, 1.0] there, [0.4, 1.0] now",
        ]
        assert str(tmp_path / "mine") in lines[0]

    def test_more_epochs_are_the_same_run_only_where_no_schedule_ends_with_the_last(self, tmp_path):
        constant = {"tau": {"schedule": "constant"}, "optimizer": {"schedule": "constant"}}
        mine = str(tmp_path / "mine")
        begun(RunFolder(tmp_path / "mine"), config(tmp_path) | constant)
        assert (
            choose_folder(config(tmp_path, epochs=9) | constant, mine, False).root
            == tmp_path / "mine"
        )
        moved = config(tmp_path, epochs=9) | constant | {"data": {"root": "elsewhere"}}
        assert choose_folder(moved, mine, False).root == tmp_path / "mine"
        for changed in (
            config(tmp_path, epochs=2) | constant,
            config(tmp_path, epochs=9, batch_size=32) | constant,
        ):
            with pytest.raises(RunFolderError, match=r"training\.epochs: 3 there, \d now"):
                choose_folder(changed, mine, False)

    @pytest.mark.parametrize(
        ("section", "change"),
        [
            ("data", {"cache": "none"}),
            ("devices", {"steps_per_execution": 4}),
            ("devices", {"tpu": "another-name"}),
            ("training", {"epochs": 3, "batch_size": 64, "rematerialize": True}),
        ],
    )
    def test_what_leaves_the_steps_the_same_ones_is_the_same_run(self, tmp_path, section, change):
        begun(RunFolder(tmp_path / "small-2026-11-20-1"), config(tmp_path))
        changed = config(tmp_path) | {section: change}
        for run_dir in (str(tmp_path / "small-2026-11-20-1"), None):
            assert (
                choose_folder(changed, run_dir, False, pytest.fail).root.name
                == "small-2026-11-20-1"
            )

    @pytest.mark.parametrize("key", ["root", "archive"])
    def test_images_may_have_moved_for_a_run_that_is_named_and_reads_them(self, tmp_path, key):
        """Whether they are the same their fingerprint tells, which nobody looks at where a run is
        finished, or any folder might do."""
        folder = begun(
            RunFolder(tmp_path / "small-2026-11-20-1"), config(tmp_path) | {"data": {key: "there"}}
        )
        moved = config(tmp_path) | {"data": {key: "here"}}
        assert choose_folder(moved, str(folder.root), False).root == folder.root
        said = []
        assert choose_folder(moved, None, False, said.append).root != folder.root
        assert said[1:] == [f'  data.{key}: "there" there, "here" now']
        write_atomically(folder.result, "{}")
        with pytest.raises(RunFolderError, match=rf'data\.{key}: "there" there, "here" now'):
            choose_folder(moved, str(folder.root), False)

    @pytest.mark.parametrize(
        ("other", "why"),
        [
            ({"optimizer": {"schedule": "constant"}}, r"tau's does \(tau\.schedule\)"),
            (
                {"tau": {"schedule": "constant"}},
                r"the learning rate's does \(optimizer\.schedule, predictor\.schedule\)",
            ),
        ],
    )
    def test_why_a_run_gets_no_more_epochs_is_said(self, tmp_path, other, why):
        begun(RunFolder(tmp_path / "mine"), config(tmp_path) | other)
        with pytest.raises(
            RunFolderError,
            match="A run may get more epochs only where no schedule ends with the last one, and "
            f"{why}",
        ):
            choose_folder(config(tmp_path, epochs=9) | other, str(tmp_path / "mine"), False)

    def test_a_folder_that_holds_only_the_lock_of_a_run_that_did_not_begin_is_taken(self, tmp_path):
        (tmp_path / ".lock").write_text("")
        assert choose_folder(config(tmp_path), str(tmp_path), False).root == tmp_path

    @pytest.mark.parametrize("content", ["photo.jpg", "config.txt"])
    def test_a_folder_of_something_else_is_refused(self, tmp_path, content):
        (tmp_path / content).write_text("not ours")
        with pytest.raises(
            RunFolderError,
            match="expected a new or empty folder, or a run's; it holds something else",
        ):
            choose_folder(config(tmp_path), str(tmp_path), False)
        assert [path.name for path in tmp_path.iterdir()] == [content]

    def test_a_file_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("not ours")
        with pytest.raises(RunFolderError, match="it holds something else"):
            choose_folder(config(tmp_path), str(tmp_path / "file"), False)

    @pytest.mark.parametrize("text", ["{", "", "[1, 2]", '"text"', "\x00\udcff"])
    def test_a_config_that_no_run_wrote_is_an_error_that_names_it(self, tmp_path, text):
        (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(RunFolderError, match=r"config\.json: expected the JSON"):
            choose_folder(config(tmp_path), str(tmp_path), False)

    def test_fresh_and_a_folder_with_a_run_contradict_each_other(self, tmp_path):
        begun(RunFolder(tmp_path / "mine"), config(tmp_path))
        with pytest.raises(
            RunFolderError, match="--fresh starts a run anew, and this folder holds one"
        ):
            choose_folder(config(tmp_path), str(tmp_path / "mine"), True)


class TestBegin:
    def test_what_is_known_before_the_first_step_is_written(self, tmp_path):
        skipped = (("a/b.jpg", "truncated"), ('odd, "name".png', "not an image"))
        folder = begun(RunFolder(tmp_path / "run"), config(tmp_path), skipped)
        assert folder.saved_config() == config(tmp_path)
        facts = json.loads(folder.environment.read_text())
        assert facts["command"] == ["byol-train", "--config", "x.json"]
        assert facts["data_fingerprint"] == "f1n9e2"
        assert {"numpy", "keras"} <= set(facts["packages"])
        assert facts["python"].startswith("3.")
        with folder.skipped.open(newline="") as file:
            assert list(csv.reader(file)) == [["path", "reason"], *map(list, skipped)]
        assert folder.figures.is_dir()

    def test_nothing_skipped_is_no_table(self, tmp_path):
        assert not begun(RunFolder(tmp_path / "run"), config(tmp_path)).skipped.exists()

    def test_finished_is_what_the_result_says(self, tmp_path):
        folder = RunFolder(tmp_path)
        assert folder.finished() is None
        write_atomically(folder.result, '{"loss": 1.5}\n')
        assert folder.finished() == {"loss": 1.5}

    def test_left_overs_go_and_changed_versions_are_told(self, tmp_path):
        folder = RunFolder(tmp_path / "run")
        assert folder.begin("{}", [], "", ()) == []
        facts = json.loads(folder.environment.read_text())
        facts["packages"] |= {"keras": "1.0", "gone": "2.0"}
        folder.environment.write_text(json.dumps(facts))
        (folder.root / ".history.csv.part").write_text("half")
        (folder.export / ".encoder.part").mkdir(parents=True)
        (folder.export / ".encoder.part.keras").write_text("half")
        changed = folder.begin("{}", [], "", (), goes_on=True)
        assert changed[0] == "gone: 2.0 when the run was begun, absent now"
        assert [line.split(":")[0] for line in changed] == ["gone", "keras"]
        assert not [path for path in folder.root.rglob(".*")]

    def test_each_later_start_is_compared_with_the_first(self, tmp_path):
        folder = RunFolder(tmp_path / "run")
        folder.begin("{}", ["first"], "images", ())
        facts = json.loads(folder.environment.read_text())
        facts["packages"] |= {"keras": "1.0"}
        folder.environment.write_text(json.dumps(facts))
        for command in ("second", "third"):
            assert [
                line.split(":")[0]
                for line in folder.begin("{}", [command], "images", (), goes_on=True)
            ] == ["keras"]
            now = json.loads(folder.environment.read_text())
            assert now["begun"] == facts
            assert (now["command"], now["packages"]["keras"] != "1.0") == ([command], True)
        assert folder.begin("{}", ["anew"], "images", ()) == []
        assert "begun" not in json.loads(folder.environment.read_text())

    def test_of_a_run_that_begins_anew_the_history_goes(self, tmp_path):
        folder = begun(RunFolder(tmp_path / "run"), config(tmp_path))
        assert folder.trained_epochs() == 0
        folder.history.write_text("epoch,loss\n0,\n1,2.5\n")
        folder.begin("{}", [], "", (), goes_on=True)
        assert folder.trained_epochs() == 1
        begun(folder, config(tmp_path))
        assert not folder.history.exists()
        folder.history.write_text("no\ntable\n")
        with pytest.raises(
            RunFolderError, match=r"history\.csv: expected the table that a run wrote"
        ):
            folder.trained_epochs()

    def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(
            RunFolderError,
            match=r"expected a folder that can be written; received .*Not a directory",
        ):
            RunFolder(tmp_path / "file" / "run").begin("{}", [], "", ())

    def test_a_moved_folders_result_says_where_it_is_now(self, tmp_path):
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

    def test_a_damaged_result_is_an_error_that_names_it(self, tmp_path):
        (tmp_path / "result.json").write_text("{")
        with pytest.raises(
            RunFolderError, match=r"result\.json: expected the JSON that a run wrote"
        ):
            RunFolder(tmp_path).finished()

    def test_git_state_is_none_outside_a_repository(self, tmp_path, monkeypatch):
        monkeypatch.setattr(run_folder, "__file__", str(tmp_path / "folder.py"))
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert run_folder.environment()["git"] is None


class TestWriteAtomically:
    def test_replaces_the_text_and_leaves_nothing_beside(self, tmp_path):
        for text in ("first, and longer", "é ü 写"):
            write_atomically(tmp_path / "file", text)
            assert (tmp_path / "file").read_bytes() == text.encode()
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    @pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
    def test_what_could_not_be_written_leaves_nothing(self, tmp_path, monkeypatch, where):
        write_atomically(tmp_path / "file", b"old")

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(where, full)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(tmp_path / "file", b"new")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        assert (tmp_path / "file").read_bytes() == b"old"

    @pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
    def test_a_reader_never_sees_half_a_file(self, tmp_path, monkeypatch, where):
        write_atomically(tmp_path / "file", "old")

        def stopped(*_):
            assert (tmp_path / "file").read_text() == "old"
            raise KeyboardInterrupt

        with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
            interrupted.setattr(where, stopped)
            write_atomically(tmp_path / "file", "new")
        assert (tmp_path / "file").read_text() == "old"
        write_atomically(tmp_path / "file", "new")
        assert (tmp_path / "file").read_text() == "new"


def test_a_run_from_before_a_key_was_there_goes_on(tmp_path):
    from byol_tf.config.loading import load_config, resolved_json

    now = json.loads(resolved_json(load_config("demo")))
    before = {name: value for name, value in now.items() if name != "monitor"}
    before["encoder"] = {
        name: value for name, value in now["encoder"].items() if name not in ("padding", "weights")
    }
    folder = begun(RunFolder(tmp_path / "run"), before)
    assert choose_folder(now, str(folder.root), False).root == folder.root
    with pytest.raises(RunFolderError, match=r'encoder.padding: "same" there, "symmetric" now'):
        choose_folder(
            now | {"encoder": now["encoder"] | {"padding": "symmetric"}}, str(folder.root), False
        )
