"""Runs of the real command that are interrupted at any step end on the same bits.

Views are made in the step (fused); `test_command.py` has those of keras-cv.
"""

import csv
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_tf.runs.checkpoints import list_checkpoints, position_of, read_newest, write_checkpoint
from tests.helpers.waiting import HANG, wait_until

ROOT = Path(__file__).parents[3]
EPOCHS, STEPS = 2, 25
TINY = {
    "name": "tiny",
    "data": {"source": "textures", "pretrain_images": 16 * STEPS + 3},
    "views": {"size": 32, "engine": "fused"},
    "encoder": {"name": "convnet", "width": 0.25},
    "projector": {"hidden_size": 32, "output_size": 16},
    "predictor": {"hidden_size": 32},
    "tau": {"base": 0.99},
    "optimizer": {"base_learning_rate": 0.002, "reference_batch_size": None},
    "training": {"epochs": EPOCHS, "batch_size": 16, "deterministic": True},
    "devices": {"strategy": "cpu"},
    "probe": {"train_images": 50, "test_images": 50, "neighbours": 5},
    "run": {"checkpoint_every_steps": 1, "checkpoint_every_minutes": None, "report": False},
}
WITH_NEXT_BATCH = """
import sys
from byol_tf.train import experiment
real = experiment.train_batches
experiment.train_batches = lambda config, images, first_step=0, *rest: real(config, images, first_step + 1, *rest)
from byol_tf.train.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
NOTEBOOK = """
import sys
from pathlib import Path
from byol_tf.devices import prepare_environment
prepare_environment()
import keras
import numpy as np
from byol_tf import Experiment, load_config
from byol_tf.errors import Interrupted
for _ in range(2):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(), "mse")
    model.fit(np.zeros((4, 3)), np.zeros((4, 2)), verbose=0)
try:
    Experiment(load_config(sys.argv[2]), Path(sys.argv[4])).run(verbose=0)
except Interrupted as stopped:
    sys.exit(stopped.exit_code)
print((Path(sys.argv[4]) / "result.json").read_text().replace("\\n", " "))
"""
"""A process that has built other models and optimizers, and then runs the experiment."""


def arguments(folder: Path, *more: str) -> list[str]:
    """Returns the arguments that train TINY in a folder."""
    config = folder / "tiny.json"
    config.write_text(json.dumps(TINY))
    return ["--config", str(config), "--run-dir", str(folder / "run"), *more]


def start(*line: str) -> subprocess.Popen:
    """Starts a command; `python -m byol_tf.train` if the line begins with options."""
    words = (
        [sys.executable, "-m", "byol_tf.train", *line]
        if line[0].startswith("-")
        else [sys.executable, *line[1:]]
    )
    return subprocess.Popen(
        words, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> tuple[dict, str]:
    """Returns the result of a process that ends well, and what it printed."""
    printed, errors = process.communicate(timeout=HANG)
    assert process.returncode == 0, errors
    return json.loads(printed.splitlines()[-1]), printed


def wait_for(folder: Path, epoch: int, step: int, process: subprocess.Popen) -> None:
    """Returns once there is a checkpoint at a step of an epoch or later."""

    def has_checkpoint() -> bool:
        assert process.poll() is None, process.stderr.read()
        return any(
            position_of(path) >= (epoch, step)
            for path in list_checkpoints(folder / "run" / "checkpoints")
        )

    wait_until(has_checkpoint, pause=0.005)


def rows(folder: Path) -> list[dict[str, str]]:
    """Returns the rows of history.csv without the speed."""
    with (folder / "run" / "history.csv").open() as file:
        return [
            {
                name: value
                for name, value in row.items()
                if name not in ("images_per_second", "data_wait")
            }
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[dict, list]:
    """(result, rows) of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return finish(start(*arguments(folder)))[0], rows(folder)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> tuple[Path, str, str]:
    """(folder, standard output, standard error) of a run that SIGTERM stopped at a random step."""
    folder = tmp_path_factory.mktemp("stopped")
    process = start(*arguments(folder))
    wait_for(folder, 0, random.randint(1, STEPS - 5), process)
    process.send_signal(signal.SIGTERM)
    printed, errors = process.communicate(timeout=HANG)
    assert process.returncode == 128 + signal.SIGTERM, errors
    return folder, printed, errors


@pytest.mark.long
def test_printed_command_resumes_to_the_same_bits(stopped, uninterrupted, tmp_path):
    folder, printed, errors = stopped
    assert "SIGTERM: saving and stopping" in errors
    epoch, step = map(
        int,
        re.search(
            rf"stopped by SIGTERM after epoch (\d) of 2, step (\d+) of {STEPS} in the next; saved",
            printed,
        ).groups(),
    )
    assert position_of(list_checkpoints(folder / "run" / "checkpoints")[-1]) == (epoch, step)
    assert not list(folder.rglob("*.part"))
    shutil.copytree(folder, tmp_path / "again")
    words = [
        word.replace(str(folder), str(tmp_path / "again"))
        for word in shlex.split(printed.splitlines()[-1])
    ]
    result, printed = finish(start(*words))
    assert f"resuming after epoch {epoch} of 2, step {step} of {STEPS} in the next" in printed
    assert result["weights_digest"] == uninterrupted[0]["weights_digest"]
    assert (result["steps"], result["epochs"]) == (EPOCHS * STEPS, EPOCHS)
    assert rows(tmp_path / "again") == uninterrupted[1]


@pytest.mark.long
def test_skipping_a_batch_gives_other_bits(stopped, uninterrupted, tmp_path):
    """The control of the tests here."""
    shutil.copytree(stopped[0], tmp_path / "again")
    result, _ = finish(start("python", "-c", WITH_NEXT_BATCH, *arguments(tmp_path / "again")))
    assert result["weights_digest"] != uninterrupted[0]["weights_digest"]
    assert rows(tmp_path / "again") != uninterrupted[1]


@pytest.mark.long
def test_resuming_with_other_images_is_refused(stopped, tmp_path):
    shutil.copytree(stopped[0], tmp_path / "again")
    folder = tmp_path / "again" / "run" / "checkpoints"
    newest, _ = read_newest(folder)
    write_checkpoint(
        folder, newest.epoch, newest.step, newest.arrays, newest.state | {"images": "others"}
    )
    process = start(*arguments(tmp_path / "again"))
    _, errors = process.communicate(timeout=HANG)
    assert process.returncode == 2
    assert "this run was started with other images than data.source has now" in errors


@pytest.mark.long
def test_changes_allowed_when_resuming_keep_the_bits(stopped, uninterrupted, tmp_path):
    shutil.copytree(stopped[0], tmp_path / "again")
    changes = ("training.rematerialize=true", "devices.steps_per_execution=5")
    result, printed = finish(
        start(
            *arguments(tmp_path / "again"),
            *(part for change in changes for part in ("--set", change)),
        )
    )
    assert "resuming after epoch" in printed
    assert result["weights_digest"] == uninterrupted[0]["weights_digest"]
    assert rows(tmp_path / "again") == uninterrupted[1]


@pytest.mark.long
def test_photos_may_be_moved_and_cached_or_not(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(16 * STEPS + 3):
        Image.fromarray(generator.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(
            tmp_path / "photos" / f"{number}.png"
        )

    def words(folder: Path, root: str, cache: str) -> list[str]:
        folder.mkdir(exist_ok=True)
        data = {"source": "folder", "root": str(tmp_path / root), "image_size": 32, "cache": cache}
        return arguments(folder, "--set", f"data={json.dumps(data)}")

    expected, _ = finish(start(*words(tmp_path / "whole", "photos", "memory")))
    process = start(*words(tmp_path / "interrupted", "photos", "memory"))
    wait_for(tmp_path / "interrupted", 0, 5, process)
    process.kill()
    process.communicate()
    (tmp_path / "photos").rename(tmp_path / "moved")
    result, printed = finish(start(*words(tmp_path / "interrupted", "moved", "none")))
    assert "resuming after epoch" in printed
    assert result["weights_digest"] == expected["weights_digest"]
    assert rows(tmp_path / "interrupted") == rows(tmp_path / "whole")
    (tmp_path / "interrupted" / "run" / "result.json").unlink()
    (tmp_path / "moved" / "0.png").unlink()
    # Else it would use the photos that it was started with.
    (tmp_path / "interrupted" / "run" / "photos.json.gz").unlink()
    process = start(*words(tmp_path / "interrupted", "moved", "none"))
    assert "started with other images" in process.communicate(timeout=HANG)[1]
    assert process.returncode == 2


@pytest.mark.long
def test_run_killed_three_times_ends_on_the_same_bits(uninterrupted, tmp_path):
    for epoch, first, last in ((0, 1, 12), (0, 13, STEPS - 3), (1, 1, STEPS - 3)):
        process = start(*arguments(tmp_path))
        wait_for(tmp_path, epoch, random.randint(first, last), process)
        process.kill()
        process.communicate()
    result, printed = finish(start(*arguments(tmp_path)))
    assert re.search(rf"step \d+ of {STEPS} in the next", printed)
    assert result["weights_digest"] == uninterrupted[0]["weights_digest"]
    assert rows(tmp_path) == uninterrupted[1]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.long
def test_notebook_resumes_what_the_command_started(stopped, uninterrupted, tmp_path):
    shutil.copytree(stopped[0], tmp_path / "again")
    result, _ = finish(start("python", "-c", NOTEBOOK, *arguments(tmp_path / "again")))
    assert result["weights_digest"] == uninterrupted[0]["weights_digest"]
    assert rows(tmp_path / "again") == uninterrupted[1]


@pytest.mark.long
def test_command_resumes_what_a_notebook_started(uninterrupted, tmp_path):
    process = start("python", "-c", NOTEBOOK, *arguments(tmp_path))
    wait_for(tmp_path, 0, random.randint(1, STEPS - 5), process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=HANG)
    assert process.returncode == 128 + signal.SIGTERM, errors
    result, printed = finish(start(*arguments(tmp_path)))
    assert "resuming after epoch" in printed
    assert result["weights_digest"] == uninterrupted[0]["weights_digest"]
    assert rows(tmp_path) == uninterrupted[1]


@pytest.mark.long
def test_stop_between_the_last_step_and_the_epochs_end(tmp_path):
    """Checkpoints fall on the ends of calls: here the only one is the epoch's last step."""
    calls = ["--set", f"devices.steps_per_execution={STEPS}"]
    (tmp_path / "whole").mkdir()
    expected, _ = finish(start(*arguments(tmp_path / "whole", *calls)))
    process = start(*arguments(tmp_path, *calls))
    # With the untrained network's row: the first call is being traced then.
    wait_until((tmp_path / "run" / "history.csv").exists)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=HANG)
    assert process.returncode == 128 + signal.SIGTERM
    assert f"after epoch 0 of 2, step {STEPS} of {STEPS} in the next; saved" in printed
    result, _ = finish(start(*arguments(tmp_path, *calls)))
    assert result["weights_digest"] == expected["weights_digest"]
    assert rows(tmp_path) == rows(tmp_path / "whole")


@pytest.mark.long
def test_constant_schedule_allows_more_epochs(tmp_path):
    constant = ["--set", "optimizer.schedule=constant", "--set", "tau.schedule=constant"]
    (tmp_path / "whole").mkdir()
    expected, _ = finish(start(*arguments(tmp_path / "whole", *constant)))
    finish(start(*arguments(tmp_path, *constant, "--set", "training.epochs=1")))
    result, printed = finish(start(*arguments(tmp_path, *constant)))
    assert "resuming after epoch 1 of 2" in printed
    assert result["weights_digest"] == expected["weights_digest"]


def test_folder_in_use_is_refused(tmp_path, capsys):
    from byol_tf.runs.lock import RunLock
    from byol_tf.train.__main__ import main

    with RunLock(tmp_path / "run"):
        assert main(arguments(tmp_path)) == 2
    assert f"in use by process {os.getpid()} on" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
