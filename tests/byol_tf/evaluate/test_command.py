"""`python -m byol_tf.evaluate`: figures of a run and its exports, result files, errors."""

import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_tf.evaluate.__main__ import main
from byol_tf.runs import checkpoint_format

ROOT = Path(__file__).parents[3]
TIMEOUT = 600.0  # seconds; a guard against hanging


@pytest.fixture(scope="module")
def run(copied_run, tmp_path_factory) -> Path:
    """The folder of a run that was written without training."""
    folder = copied_run(tmp_path_factory.mktemp("evaluate") / "run")
    folder.result.write_text('{"name": "tiny"}\n')
    return folder.root


@pytest.fixture
def photos(tmp_path) -> Path:
    """Class folders `a` and `b` of red and of blue photos of several sizes, 12 and 6 per split."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for channel, name in ((0, "a"), (2, "b")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 80, (40 + number, 36, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def evaluate(capsys, *arguments) -> tuple[dict, str]:
    """Returns (result, all that was printed); the last line is the result."""
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    return json.loads(printed.splitlines()[-1]), printed


def refused(capsys, *arguments) -> str:
    """The message of a command that ends with 2."""
    assert main([str(argument) for argument in arguments]) == 2
    received = capsys.readouterr()
    assert len(received.err.strip().splitlines()) == 1
    return received.err


EXPORTS = ("encoder", "encoder/1", "encoder.keras")
TRAINING = ("--seeds", 1, "--epochs", 3, "--rates", 0.01)


@pytest.mark.parametrize(
    ("protocol", "exports"),
    [
        (("linear", "--fast"), EXPORTS),
        (("knn",), EXPORTS),
        pytest.param(
            ("linear", "--epochs", 10, "--batch-size", 128, "--rates", 1),
            EXPORTS,
            marks=pytest.mark.long,
        ),
        pytest.param(
            ("finetune", *TRAINING), EXPORTS[2:], marks=pytest.mark.long
        ),  # a SavedModel can't be trained
        pytest.param(("supervised", *TRAINING), EXPORTS[2:], marks=pytest.mark.long),
    ],
    ids=lambda value: " ".join(map(str, value[:2])),
)
def test_run_and_its_exports_give_the_same_figures(
    run, tmp_path, capsys, monkeypatch, protocol, exports
):
    """Where the network is trained, up to rounding: an export's convolutions are Keras' own."""
    from byol_tf.evaluate import logistic

    monkeypatch.setattr(
        logistic,
        "logistic_protocol",
        functools.partial(logistic.logistic_protocol, strengths=(1e-3, 1e-1)),
    )
    results = [evaluate(capsys, *protocol, "--run", run)[0]]
    for name in exports:
        encoder = (
            "--encoder",
            run / "export" / name,
            "--config",
            run / "config.json",
            "--out",
            tmp_path / "out" / name,
        )
        results.append(evaluate(capsys, *protocol, *encoder)[0])
    differing = {"encoder", "seconds", "command"}
    if TRAINING[0] in protocol:
        differing |= {"top1", "top1_each", "top1_interval", "top5"}
        assert abs(results[0]["top1"] - results[1]["top1"]) < 0.02
    first, *others = (
        {key: value for key, value in result.items() if key not in differing} for result in results
    )
    assert others == [first] * len(exports)
    assert 0.15 < results[0]["top1"] < 1.0  # chance is a tenth


def test_knn_equals_scikit_learn(run, capsys):
    from sklearn.neighbors import KNeighborsClassifier

    from byol_tf.config.loading import load_config
    from byol_tf.evaluate.features import embed
    from byol_tf.models.inference import exported_form
    from byol_tf.runs.encoders import load_run_encoder
    from byol_tf.runs.folder import RunFolder
    from pipelines.sources import open_source

    folder, source = RunFolder(run), open_source(source="digits")
    config = load_config(folder.config)
    encoder = exported_form(load_run_encoder(config, folder))
    train, test = (
        embed(encoder, images).astype(np.float64) for images in (source.train, source.test)
    )
    classifier = KNeighborsClassifier(7, metric="cosine", algorithm="brute").fit(
        train, source.train.labels
    )
    result, printed = evaluate(capsys, "knn", "--run", run, "--neighbours", 7, "--uniform")
    assert result["top1"] == classifier.score(test, source.test.labels)
    assert f"top-1 {result['top1']:.1%}" in printed
    assert (result["neighbours"], result["temperature"], result["classes"]) == (7, None, 10)


def test_results_with_other_options_have_other_folders(run, capsys):
    before = (run / "result.json").read_text()
    for arguments, name in (
        (("--neighbours", 3), "knn-k3"),
        (("--temperature", 0.5), "knn-t0.5"),
        (("--set", "seed=1"), "knn-set*"),
        (("--set", "encoder.inference_size=16"), "knn-set*"),
    ):
        before_this = set(run.glob("evaluation/*"))
        result, _ = evaluate(capsys, "knn", "--run", run, *arguments)
        (folder,) = set(run.glob(f"evaluation/{name}")) - before_this
        assert json.loads((folder / "result.json").read_text()) == result
        assert result["overrides"] == (list(arguments[1:]) if "--set" in arguments else [])
    assert (run / "result.json").read_text() == before
    assert "not from an evaluation" in refused(capsys, "knn", "--run", run, "--out", run)
    assert (run / "result.json").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("linear", "--epochs", 2, "--rates", 1, "10"), "linear-epochs2-rates1_10"),
        pytest.param(
            ("finetune", "--fraction", 0.5, "--seeds", 2, "--epochs", 2, "--rates", 0.01),
            "finetune-0.5-epochs2-seeds2-rates0.01",
            marks=pytest.mark.long,
        ),
        (
            ("finetune", *TRAINING, "--head", "logistic", "--augment", "views"),
            "finetune-1-epochs3-seeds1-rates0.01-head-logistic-augment-views",
        ),
        pytest.param(
            ("supervised", "--seeds", 1, "--epochs", 2, "--rates", 0.01),
            "supervised-1-epochs2-seeds1-rates0.01",
            marks=pytest.mark.long,
        ),
    ],
)
def test_training_protocols_take_photos_of_several_sizes(run, photos, capsys, arguments, name):
    photos = ("--set", "data.source=folder", "--set", f"data.root={photos}")
    result, _ = evaluate(capsys, *arguments, "--run", run, *photos)
    assert 0.0 <= result["top1"] <= 1.0
    assert (result["train_images"], result["test_images"], result["classes"], result["top5"]) == (
        24,
        12,
        2,
        None,
    )
    assert list(run.glob(f"evaluation/{name}-set*/result.json"))
    shutil.rmtree(run / "evaluation")


def test_copies_and_unreadable_photos_are_told(run, photos, capsys):
    (photos / "train" / "a" / "broken.png").write_bytes(b"no photo")
    shutil.copy(photos / "train" / "a" / "0.png", photos / "test" / "a" / "copy.png")
    changes = ("data.source=folder", f"data.root={photos}", "data.max_unreadable_fraction=0.1")
    words = [word for change in changes for word in ("--set", change)]
    result, printed = evaluate(capsys, "knn", "--run", run, *words)
    assert (result["leaked_test_images"], result["skipped_images"]) == (1, 1)
    assert "  1 test photo is also among the photos to learn from, as exact copies" in printed
    assert "warning: 1 photo(s) can't be read and are skipped: train/a/broken.png: " in printed
    shutil.rmtree(run / "evaluation")


def test_other_photos_are_told_unless_they_are_asked_for(run, photos, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    data = {"source": "folder", "root": str(photos)}
    (folder / "config.json").write_text(json.dumps(config | {"data": data}))
    (folder / "environment.json").write_text('{"data_fingerprint": "of others"}')
    for change, told in (("data.pretrain=train", True), (f"data.root={photos}", False)):
        _, printed = evaluate(capsys, "knn", "--run", folder, "--set", change)
        assert ("the photos aren't those that" in printed) == told


def test_errors_are_one_line(run, tmp_path, photos, capsys):
    keras_file = run / "export" / "encoder.keras"
    where = ("--config", run / "config.json", "--out", tmp_path / "out")
    assert "expected a run folder, with a config.json; found none" in refused(
        capsys, "knn", "--run", tmp_path / "nowhere"
    )
    assert "--config: missing" in refused(
        capsys, "knn", "--encoder", keras_file, "--out", tmp_path / "out"
    )
    assert "--out: missing" in refused(
        capsys, "knn", "--encoder", keras_file, "--config", run / "config.json"
    )
    assert "there is nothing there" in refused(
        capsys, "knn", "--encoder", tmp_path / "no.keras", *where
    )
    assert "found no saved_model.pb" in refused(capsys, "knn", "--encoder", run, *where)
    assert "expected a key of data, seed or encoder.inference_size" in refused(
        capsys, "knn", "--run", run, "--set", "encoder.width=0.5"
    )
    assert "remove --epochs" in refused(capsys, "linear", "--fast", "--epochs", 3, "--run", run)
    assert "whose weights can be trained" in refused(
        capsys, "finetune", "--encoder", run / "export" / "encoder", *where
    )
    assert "10 classes; received 0.001" in refused(
        capsys, "finetune", "--fraction", 0.001, "--run", run
    )
    deep = tmp_path / "deep.json"
    config = json.loads((run / "config.json").read_text())
    data = {"source": "folder", "root": str(photos), "depth": 16}
    deep.write_text(json.dumps(config | {"data": data}))
    assert "expected data.channels=3 and data.depth=8 in the config, received 3 and 16" in refused(
        capsys, "knn", "--encoder", keras_file, "--config", deep, "--out", tmp_path / "out"
    )
    flat = tmp_path / "flat"
    shutil.copytree(photos / "train" / "a", flat)
    message = refused(
        capsys, "knn", "--run", run, "--set", "data.source=folder", "--set", f"data.root={flat}"
    )
    assert "has no train and no test here" in message
    assert not (tmp_path / "out").exists()


def test_unreadable_checkpoint_is_one_line(run, capsys, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(checkpoint_format, "FORMAT", 3)
        assert "expected a checkpoint of format 1 or 3; received format 2" in refused(
            capsys, "knn", "--run", run
        )

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(checkpoint_format, "_parse_manifest", refuse)
    assert (
        "expected history and checkpoints that can be read; received [Errno 13] Permission denied"
        in refused(capsys, "knn", "--run", run)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["liner", "--run", "x"], "invalid choice: 'liner' (choose from"),
        (
            ["finetune", "--run", "x", "--fraction", "1.5"],
            "--fraction: expected a number above 0 and at most 1; received '1.5'",
        ),
        (
            ["knn", "--run", "x", "--neighbours", "0"],
            "--neighbours: expected a whole number of 1 or more; received '0'",
        ),
        (["knn"], "one of the arguments --run --encoder is required"),
    ],
)
def test_invalid_options_are_refused(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_help_does_not_import_tensorflow():
    code = (
        "import sys\nfrom byol_tf.evaluate import __main__ as e\ntry: e.main(['knn', '--help'])\n"
    )
    code += "except SystemExit: assert 'tensorflow' not in sys.modules"
    assert (
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        ).returncode
        == 0
    )


def test_figure_that_can_not_be_saved_is_printed(run, tmp_path, capsys, monkeypatch):
    from byol_tf.evaluate import __main__ as command

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(command, "write_atomically", full)
    assert main(["knn", "--run", str(run), "--out", str(tmp_path / "out")]) == 74
    received = capsys.readouterr()
    assert 0.0 <= json.loads(received.out.splitlines()[-1])["top1"] <= 1.0
    file = tmp_path / "out" / "result.json"
    assert received.err == f"{file}: can't be written: No space left on device\n"


def test_output_folder_is_tried_before_the_evaluation(run, tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    error = refused(capsys, "knn", "--run", run, "--out", out)
    assert error.startswith(f"--out {out}: ") and error.endswith("Not a directory\n")


def test_seeds_that_are_finished_are_kept(run, tmp_path, capsys, monkeypatch):
    """Stopped by SIGTERM in the third training of five."""
    from byol_tf.evaluate import finetune

    trained = []

    def train(*given):
        trained.append(given)
        if len(trained) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return None, {"loss": [2.0], "accuracy": [0.5]}

    monkeypatch.setattr(finetune, "_train_classifier", train)
    monkeypatch.setattr(
        finetune, "embed", lambda model, images, crop: np.eye(10)[np.arange(len(images)) % 10]
    )
    out = tmp_path / "out"
    line = ["finetune", "--run", str(run), "--rates", "0.01", "--seeds", "5", "--out", str(out)]
    assert main(line) == 128 + signal.SIGTERM
    received = capsys.readouterr()
    partial = json.loads((out / "partial.json").read_text())
    assert len(partial["top1_each"]) == 2 and partial["top1_std"] == 0.0
    assert json.loads(received.out.splitlines()[-1]) == partial
    assert received.err == (
        f"\nstopped by SIGTERM; 2 of 5 seeds finished; they are in {out / 'partial.json'}\n"
    )
    assert not (out / "result.json").exists()


def test_figures_stay_where_the_classifier_can_not_be_exported(run, tmp_path, capsys, monkeypatch):
    from byol_tf.evaluate import finetune
    from byol_tf.export import classifier

    monkeypatch.setattr(
        finetune, "_train_classifier", lambda *_: (None, {"loss": [2.0], "accuracy": [0.5]})
    )
    monkeypatch.setattr(
        finetune, "embed", lambda model, images, crop: np.eye(10)[np.arange(len(images)) % 10]
    )

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(classifier, "export_classifier", full)
    out, line = tmp_path / "out", ["finetune", "--run", str(run), "--rates", "0.01"]
    (out / "partial.json").parent.mkdir()
    (out / "partial.json").write_text("{}")  # of an evaluation that was stopped
    export = str(tmp_path / "classifier")
    assert main([*line, "--seeds", "2", "--out", str(out), "--export", export]) == 1
    assert capsys.readouterr().err == f"--export {export}: [Errno 28] No space left on device\n"
    assert len(json.loads((out / "result.json").read_text())["top1_each"]) == 2
    assert [path.name for path in out.glob("*.json")] == ["result.json"]


@pytest.mark.parametrize(("rate", "hinted"), [(0.0001 / 27, True), (0.0001 / 9, False)])
def test_best_rate_at_an_end_of_the_widened_range_is_told(capsys, rate, hinted):
    from byol_tf.evaluate.__main__ import _print_result

    accuracies = {f"{each:g}": 0.5 for each in (0.0001 / 27, 0.0001 / 9, 0.0001)}
    facts = {"top1": 0.5, "test_images": 100, "chance": 0.1, "leaked_test_images": None}
    _print_result(facts | {"rate": rate, "held_out_accuracy": accuracies})
    assert ("smallest or largest rate tried" in capsys.readouterr().out) == hinted
