"""`python -m byol_tf.export` as a user runs it: every format, proven; what it leaves, what it
refuses."""

import dataclasses
import functools
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
from byol_tf.errors import VerificationError
from byol_tf.export.__main__ import main
from byol_tf.export.formats import FORMATS, FORMS, INT8, record_proofs, select_formats
from byol_tf.export.litert import INT8_EVERYWHERE, INT8_WEIGHTS
from byol_tf.export.sample_images import sample_photos
from byol_tf.export.usage import snippet
from byol_tf.export.verification import link_packages, verify
from byol_tf.export.writing import write_verified
from byol_tf.models.inference import exported_form
from byol_tf.runs.encoders import load_run_encoder
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.summary import read_facts
from tests.helpers.small_run import CONFIG, write_run
from tests.reference import networks as reference

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> RunFolder:
    """A run's folder after `--format all`.

    Digits are so alike to weights that weren't trained that nearest neighbours are ties, which int8
    may decide otherwise: it alone may be left out. Trained on photos it passes:
    `test_photos_keep_their_nearest_neighbours_in_every_format`.
    """
    folder = write_run(tmp_path_factory.mktemp("export") / "run")
    code = main(["--run", str(folder.root), "--format", "all"])
    assert code == (0 if (folder.export / INT8).exists() else 1)
    return folder


@pytest.fixture(scope="module")
def plain(exported) -> keras.Model:
    config = load_config(exported.config)
    return exported_form(load_run_encoder(config, exported), *config.views.preparation)


@pytest.fixture
def in_export(exported, tmp_path, monkeypatch) -> Path:
    """The export folder as the current one, with a `photo.jpg` in it."""
    copy = shutil.copytree(exported.export, tmp_path / "export")
    Image.fromarray(sample_photos()[0]).save(copy / "photo.jpg", quality=95)
    monkeypatch.chdir(copy)
    return copy


def what_is_int8(file: Path) -> str:
    """By the file itself: zero is 0 in int8 of weights, and -128 in that of activations after a
    ReLU."""
    from ai_edge_litert.interpreter import Interpreter

    tensors = [
        tensor
        for tensor in Interpreter(str(file)).get_tensor_details()
        if tensor["dtype"] is np.int8
    ]
    assert tensors
    return (
        INT8_EVERYWHERE
        if any(tensor["quantization_parameters"]["zero_points"].any() for tensor in tensors)
        else INT8_WEIGHTS
    )


def failing(capsys, *arguments) -> str:
    """The message of a command that ends with 2."""
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


# what is written


def test_every_form_is_proven_and_in_place_and_nothing_else_is_left(exported):
    forms = [form for form in FORMS if form.name != INT8 or (exported.export / INT8).exists()]
    names = sorted(path.name for path in exported.export.iterdir())
    assert names == sorted({form.name for form in forms} | {"README.md", "USAGE.md", "proof.json"})
    assert sorted(path.name for path in (exported.export / "encoder").iterdir()) == ["1"]
    for page in ("README.md", "USAGE.md"):
        text = (exported.export / page).read_text()
        assert "encoder-float16.tflite" in text
        assert (INT8 in text) == (INT8 in names)
    proofs = json.loads((exported.export / "proof.json").read_text())
    assert list(proofs) == [form.what for form in forms]
    for form in forms:
        proof = proofs[form.what]
        assert (proof["photos"], proof["images"]) == (12, 300)
        assert proof["difference"] <= (1e-5 if form.format != "litert" else form.difference)
        assert proof["cosine"] >= form.cosine
        assert proof["same_neighbour"] >= (1.0 if form.format != "litert" else form.same_neighbour)
        assert proof["milliseconds"] > 0.0
        assert proof["int8"] == (
            what_is_int8(exported.export / INT8) if form.name == INT8 else None
        )


def test_the_files_pages_say_what_of_int8_is_int8(exported, tmp_path):
    from byol_tf.export.model_card import write_card
    from byol_tf.export.usage import write_usage

    folder = RunFolder(shutil.copytree(exported.root, tmp_path / "run"))
    proofs = json.loads((folder.export / "proof.json").read_text())
    shutil.copy(folder.export / "encoder-float32.tflite", folder.export / INT8)
    for int8 in (INT8_EVERYWHERE, INT8_WEIGHTS):
        of_int8 = proofs["LiteRT, float32"] | {"name": INT8, "what": "LiteRT, int8", "int8": int8}
        record_proofs(folder.export, {"LiteRT, int8": of_int8})
        write_usage(folder.export, 32)
        write_card(read_facts(folder), folder.export)
        assert (
            f"The same with `{INT8}` is LiteRT, int8 ({int8})."
            in (folder.export / "USAGE.md").read_text()
        )
        assert f"| `{INT8}`: LiteRT, int8 ({int8}) |" in (folder.export / "README.md").read_text()


def test_the_saved_model_holds_each_weight_once(exported, plain):
    file = exported.export / "encoder" / "1" / "variables" / "variables.data-00000-of-00001"
    weights = sum(weight.nbytes for weight in plain.get_weights())
    assert (
        weights <= file.stat().st_size < 1.1 * weights + 4_096
    )  # and TensorFlow's list of objects


def test_a_file_that_differs_is_left_out_and_leaves_nothing(exported, plain, tmp_path):
    photos = sample_photos()[:3]
    right = np.concatenate([plain.predict_on_batch(photo[None]) for photo in photos])
    for expected, written in ((right, ["encoder.onnx"]), (right[::-1], [])):
        proofs, failures = write_verified(
            "onnx",
            plain,
            tmp_path / "export",
            [],
            lambda forms, part, given=expected: verify(forms, part, 32, photos, [], given),
        )
        assert len(proofs) == 1
        assert [path.name for path in (tmp_path / "export").iterdir()] == written
        assert bool(failures) != bool(written)
        shutil.rmtree(tmp_path / "export")
    assert re.fullmatch(
        r"encoder\.onnx: ONNX: smallest cosine 0\.\d+; at least 0\.9999 passes", failures[-1]
    )


def test_what_was_there_stays_where_the_new_file_fails(exported, plain, tmp_path):
    (tmp_path / "encoder.onnx").write_text("old")
    photos = sample_photos()[:3]
    wrong = np.zeros((3, plain.output_shape[-1] + 1), np.float32)
    _, failures = write_verified(
        "onnx", plain, tmp_path, [], lambda forms, part: verify(forms, part, 32, photos, [], wrong)
    )
    assert failures == ["encoder.onnx: expected [3, 33] numbers; received [3, 32]"]
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("encoder.onnx", "old")
    ]


def test_what_the_end_of_a_run_writes_removes_other_formats_of_an_earlier_encoder(
    exported, tmp_path
):
    from byol_tf.export.saved_model import export_encoder

    folder = shutil.copytree(exported.export, tmp_path / "export")
    config = load_config(exported.config)
    export_encoder(load_run_encoder(config, exported), folder, config)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "USAGE.md",
        "encoder",
        "encoder.keras",
    ]
    assert "onnx" not in (folder / "USAGE.md").read_text()


# the proof's own room


def test_a_proof_sees_the_packages_of_its_snippet_alone(tmp_path):
    link_packages(("onnxruntime", "numpy", "PIL"), tmp_path / "packages")
    linked = {path.name for path in (tmp_path / "packages").iterdir()}
    assert {
        "onnxruntime",
        "numpy",
        "PIL",
        "google",
    } <= linked  # google.protobuf is what onnxruntime requires
    assert not linked & {"tensorflow", "keras", "byol_tf", "pipelines"}


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        ("with byol_tf", "byol_tf can be imported here; the proof has to do without"),
        ("none", "No module named 'numpy'"),
    ],
)
def test_a_proof_that_could_use_byol_tf_or_lacks_a_package_fails(
    exported, tmp_path, monkeypatch, packages, message
):
    def linked(modules, folder):
        folder.symlink_to(ROOT if packages == "with byol_tf" else tmp_path)

    monkeypatch.setattr("byol_tf.export.verification.link_packages", linked)
    folder = shutil.copytree(exported.export, tmp_path / "export")
    with pytest.raises(VerificationError, match=message):
        verify(
            select_formats(("onnx",)),
            folder,
            32,
            sample_photos()[:1],
            [],
            np.zeros((1, 32), np.float32),
        )


# how each is used


def test_each_snippet_of_usage_runs_and_is_the_one_that_was_proven(in_export, capsys, plain):
    (photo,) = [np.asarray(Image.open("photo.jpg"))]
    expected = plain.predict_on_batch(photo[None])[0]
    blocks = re.findall(r"```python\n(.*?)```", Path("USAGE.md").read_text(), re.DOTALL)
    snippets = {snippet(form, 32) for form in FORMS}
    ran = [block for block in blocks if block in snippets]
    assert len(ran) == len(blocks) - 1 == 5  # one a format, the SavedModel's bytes, and fine-tuning
    for block in ran:
        namespace = {}
        exec(compile(block, "USAGE.md", "exec"), namespace)
        assert capsys.readouterr().out == "(32,)\n"
        given = Path("photo.jpg").read_bytes() if "bytes" in block else Image.fromarray(photo)
        cosine = np.dot(namespace["represent"](given), expected) / np.linalg.norm(expected) ** 2
        assert cosine == pytest.approx(
            1.0, abs=1e-2 if "litert" in block or "bytes" in block else 1e-5
        )


def test_the_keras_encoder_is_fine_tuned_in_ten_lines(in_export):
    (block,) = [
        text
        for text in re.findall(r"```python\n(.*?)```", Path("USAGE.md").read_text(), re.DOTALL)
        if "Dense(10)" in text
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


def test_bytes_of_files_of_several_kinds_and_sizes_go_together(in_export):
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
    given = [
        Path(name).read_bytes() for name in ("grey.png", "alpha.png", "photo.jpg", "photo.bmp")
    ]
    outputs = encoder.signatures["serve_bytes"](tf.constant(given))["output_0"].numpy()
    np.testing.assert_allclose(outputs[[1, 3]], expected[[1, 3]], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs[0], encoder.serve(grey[None])[0], rtol=1e-5, atol=1e-6)
    assert 1e-6 < np.abs(outputs[2] - expected[2]).max() < 0.05 * np.abs(expected[2]).max()
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unknown image file format"):
        encoder.serve_bytes(tf.constant([files[0], b"no image"]))
    with pytest.raises(tf.errors.InvalidArgumentError):
        encoder.serve_bytes(tf.constant([given[2][:1000], files[0]]))


@pytest.mark.parametrize(
    "place", [".", "export/encoder/1", "export/encoder", "export/encoder.keras"]
)
def test_photos_are_embedded_by_a_run_and_by_each_of_its_exports_alike(
    exported, plain, tmp_path, place
):
    photos = sample_photos()[:2]
    (tmp_path / "photos").mkdir()
    for number, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / "photos" / f"{number}.png")
    assert (
        embed(
            [
                "--encoder",
                str(exported.root / place),
                "--images",
                str(tmp_path / "photos"),
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    expected = np.concatenate([plain.predict_on_batch(photo[None]) for photo in photos])
    np.testing.assert_allclose(
        np.load(tmp_path / "out" / "embeddings.npz")["embeddings"], expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 57), (427, 640), (17, 113), (1, 5)])
def test_the_onnx_resize_is_kerass(height, width):
    from byol_tf.export.onnx import centred

    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        centred(image[None], 32)[0], reference.centre_resized(image, 32), atol=2e-3
    )


def test_eager_calls_and_graphs_give_the_same(plain):
    image = sample_photos()[3][None]
    np.testing.assert_allclose(plain(image), plain.predict_on_batch(image), rtol=1e-5, atol=1e-6)


# the card


def test_the_card_is_one_that_the_hub_reads(exported, tmp_path):
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
    (judged,) = data.eval_results
    assert (judged.dataset_name, judged.metric_type, judged.metric_value) == (
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
    proof = json.loads((folder.export / "proof.json").read_text())["LiteRT, float16 weights"]
    assert (
        f"| `encoder-float16.tflite`: LiteRT, float16 weights | {proof['megabytes']:.2f} | "
        f"{proof['milliseconds']:.2f} |" in card.text
    )
    assert str(tmp_path) not in card.content


# what is refused


def test_what_cannot_be_exported_is_an_error_that_says_what_would_be_right(
    exported, tmp_path, capsys, monkeypatch
):
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
    assert "expected a valid checkpoint; found none" in failing(
        capsys, "--run", tmp_path / "run"
    )


def test_int8_without_the_runs_images_says_where_to_name_them(exported, tmp_path, capsys):
    folder = shutil.copytree(exported.root, tmp_path / "run")
    shutil.rmtree(folder / "export")
    (folder / "config.json").write_text(
        json.dumps(CONFIG | {"data": {"source": "folder", "root": str(tmp_path / "gone")}})
    )
    error = failing(capsys, "--run", folder, "--format", "litert")
    assert "--format litert: expected the run's images, on which int8 is calibrated" in error
    assert "--set data.root=... says where they are" in error
    assert not (folder / "export").exists()


def test_a_missing_package_is_named_with_the_line_that_installs_it_before_tensorflow_is_imported(
    exported,
):
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
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "--format onnx: expected the packages tf2onnx, onnx, which aren't installed: pip install "
        "tf2onnx onnx "
        '(or byol_tf with the extra "export")'
    )


# long


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "normalization", "precision"),
    [
        # A ResNet's last places are 1 x 1 here, where group normalisation of weights that weren't
        # trained divides by next to nothing.
        ("convnet", "group", "float32"),
        ("convnet", "group", "mixed_bfloat16"),
        ("resnet18", "data_init", "float32"),
        ("resnet18", "layer", "float32"),
    ],
)
def test_every_normalisation_and_precision_goes_everywhere(
    tmp_path, name, normalization, precision
):
    config = CONFIG | {
        "encoder": {"name": name, "width": 0.5, "normalization": normalization},
        "devices": {"strategy": "cpu", "precision": precision},
    }
    folder = write_run(tmp_path / "run", config)
    loaded = load_config(folder.config)
    inference = load_run_encoder(loaded, folder)
    shown, size = sample_photos(), 32
    expected = np.concatenate([inference.predict_on_batch(photo[None]) for photo in shown])
    proving = functools.partial(_proven, size=size, photos=shown, expected=expected)
    for written in FORMATS:
        proofs, failures = write_verified(
            written,
            exported_form(inference, *loaded.views.preparation),
            folder.export,
            cuts(60),
            proving,
        )
        assert not failures
        assert len(proofs) == len(select_formats((written,)))
        if (
            written == "litert"
        ):  # of weights that weren't trained, activations in int8 keep too few neighbours
            assert proofs[-1].int8 == what_is_int8(folder.export / INT8) == INT8_WEIGHTS


def cuts(count: int) -> list[np.ndarray]:
    """So many squares out of the two photographs."""
    draw, photographs = np.random.default_rng(0), (sample_photos()[0], sample_photos()[6])
    corners = [
        (number % 2, draw.integers(0, 300), draw.integers(0, 500)) for number in range(count)
    ]
    return [photographs[which][top : top + 120, left : left + 120] for which, top, left in corners]


def _proven(forms, part, size, photos, expected):
    return verify(forms, part, size, photos, [], expected)


@pytest.mark.long
def test_photos_keep_their_nearest_neighbours_in_every_format(photos, tmp_path, capsys):
    from byol_tf.train.__main__ import main as train

    small = [
        "data.pretrain_images=2000",
        "training.epochs=3",
        "probe.supervised=false",
        "probe.train_images=100",
        "probe.test_images=100",
    ]
    settings = [f"data.root={photos / 'imagenette_stl10like'}", *small]
    options = [part for setting in settings for part in ("--set", setting)]
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
    proofs = json.loads((tmp_path / "run" / "export" / "proof.json").read_text())
    assert list(proofs) == [form.what for form in FORMS]
    for form in FORMS:
        assert proofs[form.what]["images"] == 300
        assert proofs[form.what]["same_neighbour"] >= (0.95 if form.name == INT8 else 0.99)
    int8 = what_is_int8(tmp_path / "run" / "export" / INT8)
    assert proofs["LiteRT, int8"]["int8"] == int8
    assert f"is LiteRT, int8 ({int8})." in (tmp_path / "run" / "export" / "USAGE.md").read_text()
    print(f"int8: {int8}")


@pytest.mark.long
def test_saved_model_cli_shows_and_runs_both_signatures(in_export):
    cli = [str(Path(sys.executable).parent / "saved_model_cli")]
    shown = subprocess.run(
        [*cli, "show", "--dir", "encoder/1", "--all"],
        capture_output=True,
        text=True,
        timeout=200,
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
        [*cli, *line, "--outdir", "out"], capture_output=True, text=True, timeout=200, check=True
    )
    encoder = tf.saved_model.load("encoder/1")  # its variables live as long as it does
    expected = encoder.serve(photo[None]).numpy()
    np.testing.assert_allclose(np.load("out/output_0.npy"), expected, rtol=1e-5, atol=1e-6)
