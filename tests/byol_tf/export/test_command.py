"""The export command: the files of every format, their use, the model card, and errors."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from byol_tf.config.loading import load_config
from byol_tf.embed.__main__ import main as embed
from byol_tf.export import sample_images
from byol_tf.export.__main__ import main
from byol_tf.export.formats import FORMAT_NAMES, FORMATS, INT8_FILE, select_formats
from byol_tf.export.litert import INT8_WEIGHTS_AND_ACTIVATIONS, INT8_WEIGHTS_ONLY
from byol_tf.export.sample_images import Samples, centre_square, sample_photos
from byol_tf.export.verification import record_verifications
from byol_tf.export.writing import write_verified
from byol_tf.models.inference import exported_form
from byol_tf.runs.encoders import load_run_encoder
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.summary import read_facts
from tests.helpers.small_run import CONFIG, write_run
from tests.reference import networks as reference

ROOT = Path(__file__).parents[3]
TIMEOUT = 600.0
"""Seconds; only a guard against hanging."""
COMPARED = 50


@pytest.fixture(scope="module")
def exported(copied_run, tmp_path_factory) -> RunFolder:
    """Returns a run's folder after `--format all`, compared on fewer images than a user's.

    To untrained weights digits look so similar that nearest neighbours are ties, which int8 may
    decide otherwise: it alone may fail. An encoder trained on photos passes:
    `test_photos_keep_nearest_neighbours_in_every_format`.
    """
    folder = copied_run(tmp_path_factory.mktemp("export") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_images, "_COMPARED", COMPARED)
        patch.setattr(sample_images, "_CALIBRATION", 50)
        code = main(["--run", str(folder.root), "--format", "all"])
    assert code == (0 if (folder.export / INT8_FILE).exists() else 1)
    return folder


@pytest.fixture(scope="module")
def plain(exported) -> keras.Model:
    config = load_config(exported.config)
    return exported_form(load_run_encoder(config, exported))


@pytest.fixture
def in_export(exported, tmp_path, monkeypatch) -> Path:
    """Returns a copy of the export folder with a `photo.jpg`; it is the current folder."""
    copy = shutil.copytree(exported.export, tmp_path / "export")
    Image.fromarray(sample_photos()[0]).save(copy / "photo.jpg", quality=95)
    monkeypatch.chdir(copy)
    return copy


def quantised_tensors(file: Path) -> str:
    """Returns which tensors are int8, by their zero points.

    In int8 zero is 0 for weights, and -128 for activations after a ReLU.
    """
    from ai_edge_litert.interpreter import Interpreter

    tensors = [
        tensor
        for tensor in Interpreter(str(file)).get_tensor_details()
        if tensor["dtype"] is np.int8
    ]
    assert tensors
    if any(tensor["quantization_parameters"]["zero_points"].any() for tensor in tensors):
        return INT8_WEIGHTS_AND_ACTIVATIONS
    return INT8_WEIGHTS_ONLY


def represent(model: keras.Model, photos) -> np.ndarray:
    return np.concatenate([model.predict_on_batch(photo[None]) for photo in photos])


def failing(capsys, *arguments) -> str:
    """Runs a command that ends with 2; returns its message."""
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


# files


def test_every_format_is_verified_and_no_other_file_is_left(exported):
    formats = [
        each for each in FORMATS if each.file != INT8_FILE or (exported.export / INT8_FILE).exists()
    ]
    names = sorted(path.name for path in exported.export.iterdir())
    assert names == sorted(
        {each.file for each in formats} | {"README.md", "USAGE.md", "verification.json"}
    )
    assert sorted(path.name for path in (exported.export / "encoder").iterdir()) == ["1"]
    for page in ("README.md", "USAGE.md"):
        text = (exported.export / page).read_text()
        assert "encoder-float16.tflite" in text
        assert (INT8_FILE in text) == (INT8_FILE in names)
    verifications = json.loads((exported.export / "verification.json").read_text())
    assert list(verifications) == [each.title for each in formats]
    for each in formats:
        measured, tolerance = verifications[each.title], each.tolerance
        assert (measured["photos"], measured["images"]) == (12, COMPARED)
        assert measured["difference"] <= (1e-5 if each.name != "litert" else tolerance.difference)
        assert measured["cosine"] >= tolerance.cosine
        assert measured["same_neighbour"] >= (
            1.0 if each.name != "litert" else tolerance.same_neighbour
        )
        assert measured["milliseconds"] > 0.0
        assert measured["int8"] == (
            quantised_tensors(exported.export / INT8_FILE) if each.file == INT8_FILE else None
        )


def test_pages_tell_which_tensors_are_int8(exported, tmp_path):
    from byol_tf.export.model_card import write_card
    from byol_tf.export.usage import write_usage
    from byol_tf.export.verification import Verification, read_verifications

    folder = RunFolder(shutil.copytree(exported.root, tmp_path / "run"))
    float32 = Verification(**read_verifications(folder.export)["LiteRT, float32"])
    shutil.copy(folder.export / "encoder-float32.tflite", folder.export / INT8_FILE)
    for int8 in (INT8_WEIGHTS_AND_ACTIVATIONS, INT8_WEIGHTS_ONLY):
        verification = dataclasses.replace(float32, file=INT8_FILE, title="LiteRT, int8", int8=int8)
        record_verifications(folder.export, [verification])
        write_usage(folder.export, 32)
        write_card(read_facts(folder), folder.export)
        assert (
            f"The same code with `{INT8_FILE}` uses LiteRT, int8 ({int8})."
            in (folder.export / "USAGE.md").read_text()
        )
        assert (
            f"| `{INT8_FILE}`: LiteRT, int8 ({int8}) |" in (folder.export / "README.md").read_text()
        )


@pytest.mark.parametrize(
    "content",
    [
        "nope",
        "[]",
        '{"SavedModel": {"file": "encoder"}}',
        '{"SavedModel": {"file": "encoder", "title": "x", "megabytes": "x"}}',
        '{"a":' * 100_000,
    ],
)
def test_damaged_verifications_count_as_none(exported, tmp_path, content):
    from byol_tf.export.model_card import write_card

    folder = RunFolder(shutil.copytree(exported.root, tmp_path / "run"))
    (folder.export / "verification.json").write_text(content)
    environment = json.loads(folder.environment.read_text())
    environment["python"], environment["packages"] = "<img src=x>", {"keras`": "\x1b[31m"}
    folder.environment.write_text(json.dumps(environment))
    write_card(read_facts(folder), folder.export)
    card = (folder.export / "README.md").read_text()
    assert "Not yet compared with the run's own encoder" in card
    assert "Python _img_src_x_, keras_ __31m." in card


def test_saved_model_has_each_weight_once(exported, plain):
    file = exported.export / "encoder" / "1" / "variables" / "variables.data-00000-of-00001"
    weights = sum(weight.nbytes for weight in plain.get_weights())
    # TensorFlow adds a list of the objects.
    assert weights <= file.stat().st_size < 1.1 * weights + 4_096


def test_file_that_differs_is_not_kept(plain, tmp_path):
    photos = sample_photos()[:3]
    right = represent(plain, photos)
    for expected, files in ((right, ["encoder.onnx", "verification.json"]), (right[::-1], [])):
        verifications, failures = write_verified(
            "onnx", plain, tmp_path / "export", Samples(photos), expected
        )
        assert len(verifications) == 1
        assert sorted(path.name for path in (tmp_path / "export").iterdir()) == files
        assert bool(failures) != bool(files)
        shutil.rmtree(tmp_path / "export")
    assert re.fullmatch(
        r"encoder\.onnx: ONNX: smallest cosine 0\.\d+; at least 0\.9999 passes", failures[-1]
    )


def test_earlier_file_stays_if_the_new_one_fails(plain, tmp_path):
    (tmp_path / "encoder.onnx").write_text("old")
    wrong = np.zeros((3, plain.output_shape[-1] + 1), np.float32)
    _, failures = write_verified("onnx", plain, tmp_path, Samples(sample_photos()[:3]), wrong)
    assert failures == ["encoder.onnx: expected [3, 33] numbers; received [3, 32]"]
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("encoder.onnx", "old")
    ]


def test_end_of_a_run_removes_formats_of_an_earlier_encoder(exported, tmp_path):
    from byol_tf.export.saved_model import export_encoder

    folder = shutil.copytree(exported.export, tmp_path / "export")
    config = load_config(exported.config)
    export_encoder(load_run_encoder(config, exported), folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "USAGE.md",
        "encoder",
        "encoder.keras",
    ]
    assert "onnx" not in (folder / "USAGE.md").read_text()


# use


def test_snippets_of_usage_run_as_verified(in_export, capsys, plain):
    (photo,) = [np.asarray(Image.open("photo.jpg"))]
    expected = plain.predict_on_batch(photo[None])[0]
    blocks = re.findall(r"```python\n(.*?)```", Path("USAGE.md").read_text(), re.DOTALL)
    verified = {each.code(32) for each in FORMATS}
    snippets = [block for block in blocks if block in verified]
    assert len(snippets) == 5  # one for each format, and another for the SavedModel's bytes
    assert len(blocks) == 7  # one for fine-tuning, and one for PyTorch
    for block in snippets:
        namespace = {}
        exec(compile(block, "USAGE.md", "exec"), namespace)
        assert capsys.readouterr().out == "(32,)\n"
        argument = Path("photo.jpg").read_bytes() if "bytes" in block else Image.fromarray(photo)
        cosine = np.dot(namespace["represent"](argument), expected) / np.linalg.norm(expected) ** 2
        assert cosine == pytest.approx(
            1.0, abs=1e-2 if "litert" in block or "bytes" in block else 1e-5
        )


def test_keras_file_is_fine_tuned_in_ten_lines(in_export):
    (block,) = [
        text
        for text in re.findall(r"```python\n(.*?)```", Path("USAGE.md").read_text(), re.DOTALL)
        if "Dense(10" in text
    ]
    assert len(block.splitlines()) <= 10
    labels = np.arange(40) % 2
    images = np.random.default_rng(0).integers(0, 100, (40, 37, 45, 3), dtype=np.uint8)
    images[labels == 1, ..., 0] += 150
    namespace = {"images": images, "labels": labels}
    before = keras.saving.load_model("encoder.keras").get_weights()
    exec(compile(block.replace("1e-4", "3e-3"), "USAGE.md", "exec"), namespace)
    assert namespace["model"].evaluate(images, labels, verbose=0)[1] == 1.0
    assert any(
        np.abs(one - other).max() > 1e-3
        for one, other in zip(before, namespace["encoder"].get_weights(), strict=True)
    )


def test_bytes_of_files_of_several_types_form_a_batch(in_export):
    encoder = tf.saved_model.load("encoder/1")
    photos = sample_photos()[:4]
    for number, photo in enumerate(photos):
        Image.fromarray(photo).save(f"{number}.png")
    files = [Path(f"{number}.png").read_bytes() for number in range(4)]
    expected = np.concatenate([encoder.serve(photo[None]) for photo in photos])
    np.testing.assert_allclose(
        encoder.serve_bytes(tf.constant(files)), expected, rtol=1e-5, atol=1e-6
    )
    grey = np.repeat(photos[0][..., :1], 3, axis=-1)
    Image.fromarray(grey[..., 0]).save("grey.png")
    Image.fromarray(np.concatenate([photos[1], photos[1][..., :1]], axis=-1)).save("alpha.png")
    Image.fromarray(photos[2]).save("photo.jpg", quality=95)
    Image.fromarray(photos[3]).save("photo.bmp")
    other_files = [
        Path(name).read_bytes() for name in ("grey.png", "alpha.png", "photo.jpg", "photo.bmp")
    ]
    outputs = encoder.signatures["serve_bytes"](tf.constant(other_files))["output_0"].numpy()
    np.testing.assert_allclose(outputs[[1, 3]], expected[[1, 3]], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs[0], encoder.serve(grey[None])[0], rtol=1e-5, atol=1e-6)
    assert 1e-6 < np.abs(outputs[2] - expected[2]).max() < 0.05 * np.abs(expected[2]).max()
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unknown image file format"):
        encoder.serve_bytes(tf.constant([files[0], b"no image"]))
    with pytest.raises(tf.errors.InvalidArgumentError):
        encoder.serve_bytes(tf.constant([other_files[2][:1000], files[0]]))


@pytest.mark.parametrize(
    "path", [".", "export/encoder/1", "export/encoder", "export/encoder.keras"]
)
def test_run_and_exports_embed_photos_alike(exported, plain, tmp_path, path):
    photos = sample_photos()[:2]
    (tmp_path / "photos").mkdir()
    for number, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / "photos" / f"{number}.png")
    assert (
        embed(
            [
                "--encoder",
                str(exported.root / path),
                "--images",
                str(tmp_path / "photos"),
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    expected = represent(plain, photos)
    np.testing.assert_allclose(
        np.load(tmp_path / "out" / "embeddings.npy"), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 57), (427, 640), (17, 113), (1, 5)])
def test_onnx_resize_matches_keras(height, width):
    from byol_tf.export.onnx import resize_centre

    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        resize_centre(image[None], 32)[0], reference.centre_resized(image, 32), atol=2e-3
    )


def test_eager_call_matches_graph(plain):
    image = sample_photos()[3][None]
    np.testing.assert_allclose(plain(image), plain.predict_on_batch(image), rtol=1e-5, atol=1e-6)


# model card


def test_hub_reads_the_model_card(exported, tmp_path):
    from huggingface_hub import ModelCard

    shutil.copytree(exported.root, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    folder.history.write_text(
        "epoch,loss,probe_accuracy,projection_std,projection_cosine,effective_rank\n"
        "0,,0.25,0.9,0.1,20\n1,1.5,0.5,0.8,0.1,30\n"
    )
    result = {
        "pretrain_images": 1437,
        "epochs": 1,
        "steps": 22,
        "seconds": 4.0,
        "images_per_second": 359.0,
        "supervised_accuracy": 0.4,
    }
    from byol_tf.export.model_card import write_card

    write_card(dataclasses.replace(read_facts(folder), result=result), folder.export)
    card = ModelCard.load(folder.export / "README.md")
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.license) == (
        "keras",
        "image-feature-extraction",
        "unknown",
    )
    assert {"byol", "convnet", "self-supervised-learning"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == (
        "digits",
        "accuracy",
        0.5,
    )
    assert data.model_name == "tiny"
    for words in (
        "| linear probe | 25.0% | 50.0% |",
        "supervised on the same labels | | 40.0% |",
        "1,437 images of `digits`",
        "effective rank",
    ):
        assert words in card.text
    recorded = json.loads((folder.export / "verification.json").read_text())
    float16 = recorded["LiteRT, float16 weights"]
    assert (
        f"| `encoder-float16.tflite`: LiteRT, float16 weights | {float16['megabytes']:.2f} | "
        f"{float16['milliseconds']:.2f} |" in card.text
    )
    assert str(tmp_path) not in card.content


# errors


def test_wrong_arguments_are_errors_with_the_expected_value(exported, tmp_path, capsys):
    assert (
        f"--run {tmp_path}: expected a run folder, with a config.json; found none there"
        in failing(capsys, "--run", tmp_path)
    )
    asked = ("--run", exported.root, "--set", "views.size=16")
    assert "--set views.size=16: expected a key of data" in failing(capsys, *asked)
    with pytest.raises(SystemExit) as stopped:
        main(["--run", str(exported.root), "--format", "pytorch"])
    assert stopped.value.code == 2
    assert "invalid choice: 'pytorch'" in capsys.readouterr().err
    shutil.copytree(exported.root, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert "expected a valid checkpoint; found none" in failing(capsys, "--run", tmp_path / "run")


@pytest.mark.parametrize("features", ["vector", "map"])
def test_export_through_a_link_is_an_error(exported, tmp_path, capsys, features):
    folder = shutil.copytree(exported.root, tmp_path / "run")
    (folder / "export").rename(tmp_path / "mine")
    (folder / "export").symlink_to(tmp_path / "mine")
    before = sorted(tmp_path.joinpath("mine").iterdir())
    error = failing(capsys, "--run", folder, "--features", features)
    assert f"{folder / 'export'}: it is a link" in error
    assert sorted(tmp_path.joinpath("mine").iterdir()) == before


def test_images_other_than_the_runs_are_told(exported, tmp_path, capsys):
    """The export is compared on them, and int8 calibrated."""
    folder = shutil.copytree(exported.root, tmp_path / "run")
    for number in range(4):
        Image.new("RGB", (40, 40), (60 * number, 0, 0)).save(folder / f"{number}.png")
    data = {"source": "folder", "root": str(folder), "layout": "flat"}
    (folder / "config.json").write_text(json.dumps(CONFIG | {"data": data}))
    (folder / "environment.json").write_text('{"data_fingerprint": "of others"}')
    main(["--run", str(folder), "--format", "keras"])
    assert f"the photos aren't those that {folder} was trained on" in capsys.readouterr().out


def test_int8_without_images_is_an_error(exported, tmp_path, capsys):
    folder = shutil.copytree(exported.root, tmp_path / "run")
    shutil.rmtree(folder / "export")
    (folder / "config.json").write_text(
        json.dumps(CONFIG | {"data": {"source": "folder", "root": str(tmp_path / "gone")}})
    )
    error = failing(capsys, "--run", folder, "--format", "litert")
    assert "--format litert: expected the run's images, on which int8 is calibrated" in error
    assert "--set data.root=... names their location" in error
    assert not (folder / "export").exists()


def test_missing_package_is_named_before_tensorflow_is_imported(exported):
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name in ('tf2onnx', 'onnx') else find(name, "
        "*rest)\n"
        f"from byol_tf.export.__main__ import main; code = main(['--run', {str(exported.root)!r}, "
        "'--format', 'all'])\n"
        "assert 'tensorflow' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "--format onnx: expected the packages tf2onnx, onnx, which aren't installed: "
        'pip install -e ".[export]"'
    )


# long


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "normalization", "precision"),
    [
        # Not a ResNet with group normalisation: its last maps are 1 x 1 here, and with untrained
        # weights the statistics divide by almost 0.
        ("convnet", "group", "float32"),
        ("convnet", "group", "mixed_bfloat16"),
        ("resnet18", "data_init", "float32"),
        ("resnet18", "layer", "float32"),
    ],
)
def test_all_formats_of_every_normalization_and_precision(tmp_path, name, normalization, precision):
    config = CONFIG | {
        "encoder": {"name": name, "width": 0.5, "normalization": normalization},
        "devices": {"strategy": "cpu", "precision": precision},
    }
    folder = write_run(tmp_path / "run", config)
    loaded = load_config(folder.config)
    inference = load_run_encoder(loaded, folder)
    model = exported_form(inference)
    photos = sample_photos()
    samples = Samples(photos, calibration=random_squares(60, 32))
    for format_name in FORMAT_NAMES:
        verifications, failures = write_verified(
            format_name, model, folder.export, samples, represent(inference, photos)
        )
        assert not failures
        assert len(verifications) == len(select_formats((format_name,)))
        if format_name == "litert":  # with untrained weights int8 activations are too coarse
            int8 = quantised_tensors(folder.export / INT8_FILE)
            assert verifications[-1].int8 == int8 == INT8_WEIGHTS_ONLY


def random_squares(count: int, size: int) -> list[np.ndarray]:
    """Returns random squares of the two photographs in scikit-learn."""
    rng, photographs = np.random.default_rng(0), (sample_photos()[0], sample_photos()[6])
    squares = []
    for number in range(count):
        top, left = rng.integers(0, 300), rng.integers(0, 500)
        square = photographs[number % 2][top : top + 120, left : left + 120]
        squares.append(centre_square(square, size))
    return squares


@pytest.mark.long
def test_photos_keep_nearest_neighbours_in_every_format(photos, tmp_path, capsys):
    from byol_tf.train.__main__ import main as train

    small = [
        "data.pretrain_images=2000",
        "training.epochs=3",
        "probe.supervised=false",
        "probe.train_images=100",
        "probe.test_images=100",
    ]
    settings = [f"data.root={photos / 'imagenette_stl10like'}", *small]
    options = [argument for setting in settings for argument in ("--set", setting)]
    assert (
        train(
            [
                "--config",
                str(ROOT / "configs" / "few-photos.json"),
                *options,
                "--run-dir",
                str(tmp_path / "run"),
            ]
        )
        == 0
    )
    assert main(["--run", str(tmp_path / "run"), "--format", "all"]) == 0
    export = tmp_path / "run" / "export"
    verifications = json.loads((export / "verification.json").read_text())
    assert list(verifications) == [each.title for each in FORMATS]
    for each in FORMATS:
        assert verifications[each.title]["images"] == 300
        assert verifications[each.title]["same_neighbour"] >= (
            0.95 if each.file == INT8_FILE else 0.99
        )
    int8 = quantised_tensors(export / INT8_FILE)
    assert verifications["LiteRT, int8"]["int8"] == int8
    assert f"uses LiteRT, int8 ({int8})." in (export / "USAGE.md").read_text()
    print(f"int8: {int8}")


@pytest.mark.long
def test_saved_model_cli_shows_both_signatures_and_runs_one(in_export):
    cli = [str(Path(sys.executable).parent / "saved_model_cli")]
    shown = subprocess.run(
        [*cli, "show", "--dir", "encoder/1", "--all"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    ).stdout
    for name in (
        "signature_def['serve']",
        "signature_def['serve_bytes']",
        "signature_def['serving_default']",
        "dtype: DT_UINT8",
        "dtype: DT_STRING",
    ):
        assert name in shown
    photo = sample_photos()[4]
    np.save("photos.npy", photo[None])
    line = [
        "run",
        "--dir",
        "encoder/1",
        "--tag_set",
        "serve",
        "--signature_def",
        "serving_default",
        "--inputs",
        "images=photos.npy",
    ]
    subprocess.run(
        [*cli, *line, "--outdir", "out"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    encoder = tf.saved_model.load("encoder/1")  # its variables live as long as it does
    expected = encoder.serve(photo[None]).numpy()
    np.testing.assert_allclose(np.load("out/output_0.npy"), expected, rtol=1e-5, atol=1e-6)
