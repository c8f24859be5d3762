"""Choice of the run folder, and its claim against other processes."""

import datetime
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from byol_tf.errors import RunFolderError
from byol_tf.runs import folder_choice
from byol_tf.runs.files import write_atomically
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.folder_choice import choose_folder, claimed_folder
from tests.helpers.waiting import HANG

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def today(monkeypatch):
    """It is 21 November 2026."""

    class Date(datetime.date):
        @classmethod
        def today(cls):
            return cls(2026, 11, 21)

    monkeypatch.setattr(folder_choice.datetime, "date", Date)


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


def started(folder: RunFolder, config: dict) -> RunFolder:
    folder.begin(json.dumps(config), ["byol", "train", "--config", "x.json"], "f1n9e2", ())
    return folder


@pytest.mark.parametrize("root", ["/dev/null", "/dev/null/runs", "a" * 300, "b/" * 3000])
def test_place_that_holds_no_folder_is_refused_before_anything(tmp_path, root):
    with pytest.raises(RunFolderError, match=r"run\.root: expected a folder, new or not; received"):
        choose_folder(config(Path(root)), None, False)
    with pytest.raises(RunFolderError, match=r"--run-dir .*: expected a folder, new or not; "):
        choose_folder(config(tmp_path), root, False)


class TestWithoutRunDir:
    def test_first_folder_is_numbered_1_and_not_made(self, tmp_path):
        folder = choose_folder(config(tmp_path / "runs"), None, False)
        assert folder.root == tmp_path / "runs" / "small-2026-11-21-1"
        assert not (tmp_path / "runs").exists()

    def test_same_config_resumes_in_its_newest_folder(self, tmp_path):
        same = config(tmp_path)
        for name in ("small-2026-11-20-1", "small-2026-11-21-9", "small-2026-11-21-10"):
            started(RunFolder(tmp_path / name), same)
        started(RunFolder(tmp_path / "small-2026-11-21-11"), config(tmp_path, epochs=4))
        assert choose_folder(same, None, False).root.name == "small-2026-11-21-10"

    def test_keys_without_effect_on_training_make_no_new_folder(self, tmp_path):
        old = started(choose_folder(config(tmp_path), None, False), config(tmp_path))
        changed = config(tmp_path) | {
            "about": "another note",
            "run": {"root": str(tmp_path), "keep_checkpoints": 9},
            "$schema": "x",
        }
        assert choose_folder(changed, None, False).root == old.root

    def test_other_config_gets_the_next_number(self, tmp_path):
        started(choose_folder(config(tmp_path), None, False), config(tmp_path))
        assert (
            choose_folder(config(tmp_path, epochs=4), None, False).root.name == "small-2026-11-21-2"
        )

    def test_unfinished_run_of_another_config_is_logged(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        started(choose_folder(config(tmp_path), None, False), config(tmp_path))
        choose_folder(config(tmp_path, epochs=4), None, False)
        assert caplog.messages[0].startswith(
            f"{tmp_path / 'small-2026-11-21-1'} isn't finished, and was started with another config"
        )
        assert caplog.messages[1:] == ["  training.epochs: 3 there, 4 now"]
        caplog.clear()
        write_atomically(tmp_path / "small-2026-11-21-1" / "result.json", "{}")
        choose_folder(config(tmp_path, epochs=4), None, False)
        assert caplog.messages == []

    def test_numbers_restart_each_day_and_are_used_once(self, tmp_path):
        for name in ("small-2026-11-20-7", "small-2026-11-21-2", "small-2026-11-21-10"):
            (tmp_path / name).mkdir(parents=True)
        assert choose_folder(config(tmp_path), None, False).root.name == "small-2026-11-21-11"

    def test_fresh_is_a_new_folder_in_any_case(self, tmp_path):
        started(choose_folder(config(tmp_path), None, False), config(tmp_path))
        assert choose_folder(config(tmp_path), None, True).root.name == "small-2026-11-21-2"

    def test_names_with_common_prefix_are_told_apart(self, tmp_path):
        started(RunFolder(tmp_path / "small-photos-2026-11-21-5"), config(tmp_path))
        started(RunFolder(tmp_path / "small-2026-11-21-5-copy"), config(tmp_path))
        assert choose_folder(config(tmp_path), None, False).root.name == "small-2026-11-21-1"
        odd = config(tmp_path, name="a+b.")
        started(RunFolder(tmp_path / "a+b.-2026-11-21-3"), odd)
        assert choose_folder(odd, None, False).root.name == "a+b.-2026-11-21-3"


CLAIMING = """
import json, sys, time
from pathlib import Path
from byol_tf.runs.folder_choice import claimed_folder

root, rounds, config = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
print("begun", flush=True)
for number in range(rounds):
    while not (root / f"go-{number}").exists():
        time.sleep(0.0005)
    with claimed_folder(config | {"run": {"root": f"{root}/runs/{number}"}}, None, False) as folder:
        folder.environment.write_text("{}")  # as if the run had begun
    print(folder.root, flush=True)
"""

EXITING = """
import json
from byol_tf.runs.folder_choice import claimed_folder
from byol_tf.runs.process_exit import exit_now

with claimed_folder(json.loads('%s'), None, False) as folder:
    assert folder.config.exists()
    exit_now(75)
"""


class TestClaimed:
    @pytest.mark.parametrize(
        ("count", "rounds"),
        [
            (4, 5),
            *(pytest.param(count, 50, marks=pytest.mark.long) for count in (2, 4, 8)),
        ],
    )
    def test_commands_started_at_once_have_folders_of_their_own(self, tmp_path, count, rounds):
        """Each with its own config; the processes begin each round together."""
        processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-c", CLAIMING, str(tmp_path), str(rounds)),
                    json.dumps(config(tmp_path) | {"seed": seed}),
                ],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for seed in range(count)
        ]
        for process in processes:
            assert process.stdout.readline() == "begun\n"
        for number in range(rounds):
            (tmp_path / f"go-{number}").touch()
            folders = [Path(process.stdout.readline().strip()) for process in processes]
            assert len(set(folders)) == count
            seeds = [json.loads((folder / "config.json").read_text())["seed"] for folder in folders]
            assert seeds == list(range(count))
            assert sorted((tmp_path / "runs" / str(number)).iterdir()) == sorted(folders)
        for process in processes:
            process.communicate(timeout=HANG)
            assert process.returncode == 0

    def test_new_folder_has_its_config_at_once(self, tmp_path):
        with claimed_folder(config(tmp_path / "runs"), None, False) as folder:
            assert folder.saved_config() == config(tmp_path / "runs")
            folder.environment.write_text("{}")
        with claimed_folder(config(tmp_path / "runs"), None, False) as again:
            assert again.root == folder.root
        with claimed_folder(config(tmp_path / "runs"), None, True) as fresh:
            assert fresh.root.name.endswith("-2")
            fresh.environment.write_text("{}")

    @pytest.mark.parametrize("run_dir", [None, "a/mine"])
    def test_run_that_does_not_begin_leaves_no_folder(self, tmp_path, run_dir, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit), claimed_folder(config("new/runs"), run_dir, False) as folder:  # fmt: skip
            (folder.root / ".lock").touch()
            raise SystemExit(2)
        assert not list(tmp_path.iterdir())

    def test_process_that_ends_before_its_run_begins_leaves_no_folder(self, tmp_path):
        """As at a signal, or when another worker has another config."""
        code = EXITING % json.dumps(config(tmp_path / "runs"))
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=HANG, check=False)
        assert done.returncode == 75
        assert not list(tmp_path.iterdir())

    def test_folder_of_another_process_stays(self, tmp_path):
        """One that chose the same config, and reads its photos now."""
        with claimed_folder(config(tmp_path), None, False) as folder:
            with pytest.raises(SystemExit), claimed_folder(config(tmp_path), None, False) as other:
                assert other.root == folder.root
                raise SystemExit(2)
            assert folder.config.exists()
            folder.environment.write_text("{}")

    def test_folder_that_can_not_be_made_is_an_error(self, tmp_path):
        (tmp_path / "file").touch()
        with (
            pytest.raises(RunFolderError, match=r"run\.root: expected a folder"),
            claimed_folder(config(tmp_path / "file"), None, False),
        ):
            pass


class TestWithRunDir:
    def test_new_or_empty_folder_is_used(self, tmp_path):
        assert (
            choose_folder(config(tmp_path), str(tmp_path / "mine"), False).root == tmp_path / "mine"
        )
        (tmp_path / "mine").mkdir()
        assert (
            choose_folder(config(tmp_path), str(tmp_path / "mine"), True).root == tmp_path / "mine"
        )

    def test_run_of_the_same_config_is_resumed(self, tmp_path):
        started(RunFolder(tmp_path / "mine"), config(tmp_path))
        assert (
            choose_folder(config(tmp_path / "elsewhere"), str(tmp_path / "mine"), False).root
            == tmp_path / "mine"
        )

    def test_each_differing_key_is_listed(self, tmp_path):
        there = config(tmp_path) | {"seed": 0}
        there["views"]["first"]["crop_area"] = [0.2, 1.0]
        started(RunFolder(tmp_path / "mine"), there)
        with pytest.raises(RunFolderError) as raised:
            choose_folder(config(tmp_path, epochs=9), str(tmp_path / "mine"), False)
        lines = str(raised.value).splitlines()
        assert [line.strip() for line in lines if line.startswith("  ")] == [
            "seed: 0 there, absent now",
            "training.epochs: 3 there, 9 now",
            "views.first.crop_area: [0.2, 1.0] there, [0.4, 1.0] now",
        ]
        assert str(tmp_path / "mine") in lines[0]

    def test_more_epochs_resume_only_without_a_schedule(self, tmp_path):
        constant = {"tau": {"schedule": "constant"}, "optimizer": {"schedule": "constant"}}
        mine = str(tmp_path / "mine")
        started(RunFolder(tmp_path / "mine"), config(tmp_path) | constant)
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
    def test_keys_that_keep_the_steps_resume_the_run(self, tmp_path, section, change, caplog):
        caplog.set_level(logging.INFO)
        started(RunFolder(tmp_path / "small-2026-11-20-1"), config(tmp_path))
        changed = config(tmp_path) | {section: change}
        for run_dir in (str(tmp_path / "small-2026-11-20-1"), None):
            assert choose_folder(changed, run_dir, False).root.name == "small-2026-11-20-1"
        assert caplog.messages == []

    @pytest.mark.parametrize("key", ["root", "archive"])
    def test_moved_images_resume_an_unfinished_named_run(self, tmp_path, key, caplog):
        """A finished run opens no images, so that the fingerprint of other ones goes unnoticed."""
        caplog.set_level(logging.INFO)
        folder = started(
            RunFolder(tmp_path / "small-2026-11-20-1"), config(tmp_path) | {"data": {key: "there"}}
        )
        moved = config(tmp_path) | {"data": {key: "here"}}
        assert choose_folder(moved, str(folder.root), False).root == folder.root
        assert choose_folder(moved, None, False).root != folder.root
        assert caplog.messages[1:] == [f'  data.{key}: "there" there, "here" now']
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
    def test_error_names_the_schedule_that_forbids_more_epochs(self, tmp_path, other, why):
        started(RunFolder(tmp_path / "mine"), config(tmp_path) | other)
        with pytest.raises(
            RunFolderError,
            match="A run may get more epochs only where no schedule ends with the last one, and "
            f"{why}",
        ):
            choose_folder(config(tmp_path, epochs=9) | other, str(tmp_path / "mine"), False)

    def test_folder_with_only_a_lock_is_used(self, tmp_path):
        (tmp_path / ".lock").write_text("")
        assert choose_folder(config(tmp_path), str(tmp_path), False).root == tmp_path

    @pytest.mark.parametrize("content", ["photo.jpg", "config.txt"])
    def test_folder_of_something_else_is_refused(self, tmp_path, content):
        (tmp_path / content).write_text("not ours")
        with pytest.raises(
            RunFolderError,
            match="expected a new or empty folder, or a run's; it holds something else",
        ):
            choose_folder(config(tmp_path), str(tmp_path), False)
        assert [path.name for path in tmp_path.iterdir()] == [content]

    def test_file_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("not ours")
        with pytest.raises(RunFolderError, match="it holds something else"):
            choose_folder(config(tmp_path), str(tmp_path / "file"), False)

    @pytest.mark.parametrize("text", ["{", "", "[1, 2]", '"text"', "\x00\udcff"])
    def test_invalid_saved_config_is_an_error_that_names_it(self, tmp_path, text):
        (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(RunFolderError, match=r"config\.json: expected the JSON"):
            choose_folder(config(tmp_path), str(tmp_path), False)

    def test_fresh_with_folder_of_a_run_is_refused(self, tmp_path):
        started(RunFolder(tmp_path / "mine"), config(tmp_path))
        with pytest.raises(
            RunFolderError, match="--fresh starts a new run, and this folder holds one"
        ):
            choose_folder(config(tmp_path), str(tmp_path / "mine"), True)


def test_run_from_before_a_key_was_added_is_resumed(tmp_path):
    from byol_tf.config.loading import load_config, resolved_json

    now = json.loads(resolved_json(load_config("demo")))
    before = {name: value for name, value in now.items() if name != "monitor"}
    before["encoder"] = {
        name: value for name, value in now["encoder"].items() if name not in ("padding", "weights")
    }
    folder = started(RunFolder(tmp_path / "run"), before)
    assert choose_folder(now, str(folder.root), False).root == folder.root
    with pytest.raises(RunFolderError, match=r'encoder.padding: "same" there, "symmetric" now'):
        choose_folder(
            now | {"encoder": now["encoder"] | {"padding": "symmetric"}}, str(folder.root), False
        )
