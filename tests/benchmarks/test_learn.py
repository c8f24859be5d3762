"""`benchmarks.learn`: its sides do the same, and its report is read off its rows."""

import argparse
import csv
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.learn.__main__ import COLUMNS, METHODS, NETWORKS, main, recipe, report
from benchmarks.learn.ours import weights
from byol_tf.config.loading import load_config
from byol_tf.models.from_config import build_model
from byol_tf.models.optimizers import SGD
from tests.helpers.waiting import HANG

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
RATE, TAU = 1.0, 0.9


@pytest.mark.long
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_that_of_lightly(method, network, tmp_path):
    if not PEERS.exists():
        pytest.skip("no .venv-peers; make peers")
    options = argparse.Namespace(network=network, size=16, batch=4, checkpoints=[1], set=[])
    (tmp_path / "config.json").write_text(recipe(options, method, seed=0))
    config = load_config(tmp_path / "config.json")
    model = build_model(config)
    model.views = None  # batches are views
    if method == "byol":
        model.tau = TAU
    model.compile(SGD(RATE))
    # Few small images: of more activations some lie so near 0 that rounding decides about ReLU.
    views = np.random.default_rng(0).normal(size=(2, 4, 16, 16, 3)).astype(np.float32)

    arrays = {"views": views, "rate": RATE, "tau": TAU} | _named("before", model.networks)
    loss = float(model.train_step([tf.constant(view) for view in views])["loss"])
    arrays |= _named("after", model.networks)
    arrays |= _named("target", model.networks | model.target_networks)
    np.savez(tmp_path / "step.npz", **arrays)

    command = [PEERS, "-m", "tests.helpers.lightly_side", network]
    command += [tmp_path / "config.json", tmp_path / "step.npz"]
    run = subprocess.run(command, cwd=ROOT, check=True, timeout=HANG, stdout=subprocess.PIPE)
    theirs = json.loads(run.stdout)
    print(method, network, theirs)
    assert theirs.pop("loss") + 4.0 * config.objective.weight == pytest.approx(loss, abs=1e-4)
    assert len(theirs) == {"byol": 3, "simclr": 1}[method]
    assert all(difference < 1e-3 for difference in theirs.values())


def _named(part, networks):
    return {f"{part}/{name}": array for name, array in weights(networks).items()}


def _rows(shift=0.0):
    """Of three epochs of both sides."""
    accuracies = {"ours": (0.2 - shift, 0.4 - shift, 0.6 - shift), "peer": (0.2, 0.3, 0.5)}
    return [
        dict(
            zip(COLUMNS, (side, "byol", 0, epoch, epoch, 10 * epoch, 9 * epoch, top1), strict=True)
        )
        for side in accuracies
        for epoch, top1 in enumerate(accuracies[side])
    ]


def test_the_report_has_when_ours_reached_the_peers_accuracy():
    (line,) = report(_rows())
    assert "reached in 15 of its 20 seconds, 0.75; reached in 14 of its 18 cpu seconds" in line
    assert "not reached within ours' 20 seconds (peer's 20)" in report(_rows(shift=0.3))[0]


def test_what_is_measured_is_not_trained_again_nor_mixed_with_other_settings(tmp_path, capsys):
    with (tmp_path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(_rows())
    (tmp_path / "photos.npz").touch()
    arguments = ["--photos", "photos", "--out", str(tmp_path), "--peer", "--methods", "byol"]
    main([*arguments, "--checkpoints", "0", "1", "2"])
    assert "0.75" in capsys.readouterr().out
    assert (tmp_path / "accuracy.png").stat().st_size > 1000
    with pytest.raises(SystemExit, match="--batch 128; expected the same or another folder"):
        main([*arguments, "--checkpoints", "0", "1", "2", "--batch", "64"])
