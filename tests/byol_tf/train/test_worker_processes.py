"""Two machines, as two processes that talk over loopback, by the real command: they learn what one
learns, and one of them writes."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from byol_tf.runs.checkpoints import list_checkpoints, position_of, read_newest

ROOT = Path(__file__).resolve().parents[3]
# LARS, since Adam makes a step of the size of its rate from the rounding error of a gradient that
# is 0; and a small rate, since a large one makes another sign of an activation out of a rounding
# error within a few steps.
OVERRIDES = [
    "data.pretrain_images=96",
    "encoder.width=0.25",
    "projector.hidden_size=32",
    "projector.output_size=16",
    "predictor.hidden_size=32",
    "objective.negatives=0.5",  # so that the objective needs the other machine's images
    "objective.temperature=0.3",
    "optimizer.name=lars",
    "optimizer.base_learning_rate=0.05",
    "optimizer.warmup_epochs=0",
    "training.batch_size=32",
    "training.epochs=2",
    "probe.train_images=50",
    "probe.test_images=50",
    "run.report=false",
    "run.checkpoint_every_steps=1",  # within epochs too, as far as the writing keeps up
]


def command(runs: Path, strategy: str, *overrides: str) -> list[str]:
    """The line that trains a small network on the embedded images for six steps."""
    settings = [*OVERRIDES, f"devices.strategy={strategy}", f"run.root={runs}", *overrides]
    return [
        sys.executable,
        "-m",
        "byol_tf.train",
        "--config",
        str(ROOT / "configs" / "demo.json"),
        *_each("--set", settings),
    ]


def _each(option: str, values: list[str]) -> list[str]:
    return [part for value in values for part in (option, value)]


def together(*lines: list[str]) -> list[subprocess.CompletedProcess]:
    """Runs one command line on each of so many machines of one cluster, to their end, with what
    they printed."""
    with (
        socket.socket() as one,
        socket.socket() as other,
    ):  # both at once, or both may get the same port
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{free.getsockname()[1]}" for free in (one, other)]
    processes = []
    for index, line in enumerate(lines):
        config = json.dumps(
            {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        )
        environment = os.environ | {"TF_CONFIG": config, "CUDA_VISIBLE_DEVICES": ""}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(line, env=environment, cwd=ROOT, **pipes))
    try:
        printed = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [
        subprocess.CompletedProcess(p.args, p.returncode, *texts)
        for p, texts in zip(processes, printed, strict=True)
    ]


def trained(*lines: list[str]) -> list[subprocess.CompletedProcess]:
    """As `together`, where nothing should be wrong."""
    done = together(*lines)
    for process in done:
        assert process.returncode == 0, process.stderr
    return done


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, list[subprocess.CompletedProcess]]:
    """(folder, processes) of a run on two machines, each with a run root of its own."""
    folder = tmp_path_factory.mktemp("pair")
    return folder, trained(
        command(folder / "chief", "multi_worker"), command(folder / "other", "multi_worker")
    )


def arrays(runs: Path) -> dict[str, np.ndarray]:
    """The variables of the one run under a root, at its end."""
    (run,) = runs.iterdir()
    checkpoint, damaged = read_newest(run / "checkpoints")
    assert checkpoint.epoch == 2
    assert not damaged
    return checkpoint.arrays


def largest_difference(ones: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> float:
    """Over all variables and momenta, relative to the largest number of each. Not those of biases
    before a batch normalisation: their gradient is 0 but for rounding."""
    assert set(ones) == set(others)
    names = [name for name in ones if "hidden/bias" not in name and "hidden_bias" not in name]
    assert 60 < len(names) < len(ones)
    return max(
        np.abs(ones[name] - others[name]).max() / max(np.abs(ones[name]).max(), 1e-2)
        for name in names
    )


def test_two_machines_learn_what_one_learns(pair, tmp_path):
    from byol_tf.train.__main__ import main

    folder, _ = pair
    assert main(command(tmp_path / "alone", "cpu")[3:]) == 0
    assert largest_difference(arrays(tmp_path / "alone"), arrays(folder / "chief")) < 1e-5


def test_the_chief_alone_writes_and_reports(pair):
    folder, (chief, other) = pair
    assert not (folder / "other").exists()
    assert [path.name for path in folder.iterdir()] == ["chief"]
    result = json.loads(chief.stdout.splitlines()[-1])
    run_dir = Path(result["run_dir"])
    assert (result["epochs"], result["steps"]) == (2, 6)
    assert json.loads((run_dir / "result.json").read_text()) == result
    for name in (
        "config.json",
        "history.csv",
        "figures/views.png",
        "figures/curves.png",
        "export/encoder/1/saved_model.pb",
    ):
        assert (run_dir / name).stat().st_size > 100, name
    assert len(list((run_dir / "logs").glob("events.out.tfevents.*"))) == 1
    assert not list(run_dir.rglob("*.part*"))
    assert other.stdout.count("\n") == 1
    assert other.stdout.startswith("demo: worker 2 of 2; the chief, 127.0.0.1:")


@pytest.mark.long
def test_both_go_on_from_the_chiefs_checkpoint_and_stop_where_the_run_is_finished(pair, tmp_path):
    folder, _ = pair
    shutil.copytree(folder / "chief", tmp_path / "chief")
    (run_dir,) = (tmp_path / "chief").iterdir()
    shutil.rmtree(run_dir / "checkpoints" / "epoch-0002")
    (run_dir / "result.json").unlink()
    epoch, step = position_of(list_checkpoints(run_dir / "checkpoints")[-1])
    lines = command(tmp_path / "chief", "multi_worker"), command(tmp_path / "other", "multi_worker")
    chief, _ = trained(*lines)
    assert epoch == 1
    assert (
        "resuming after epoch 1 of 2" + (f", step {step} of 3 in the next" if step else "")
        in chief.stdout
    )
    assert "Epoch 1/2" not in chief.stdout
    assert largest_difference(arrays(tmp_path / "chief"), arrays(folder / "chief")) < 1e-5
    chief, _ = trained(*lines)
    assert "this run is finished" in chief.stdout
    assert "Epoch" not in chief.stdout
    assert not (tmp_path / "other").exists()


@pytest.mark.long
def test_what_cannot_work_together_is_said_on_each_machine(tmp_path):
    """In place of a wait for ever, all read the same error and end, before anything is written."""
    runs = tmp_path / "runs"
    for overrides, message in (
        (
            (["seed=0"], ["seed=1"]),
            "expected the same config on each worker; worker 2 of TF_CONFIG has another one than the first",
        ),
        (
            (["training.batch_size=33"],) * 2,
            "training.batch_size: expected a multiple of 2, as there are 2 devices on 2 machines; "
            "received 33",
        ),
    ):
        for process in together(*(command(runs, "multi_worker", *each) for each in overrides)):
            assert process.returncode == 2, process.stderr
            assert message in process.stderr
    assert not runs.exists()
