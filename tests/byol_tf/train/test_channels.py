"""Runs on images that aren't RGB of 8 bits: config, normalisation, training, exports, commands."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile

from byol_tf.config.loading import load_config, resolved_json
from byol_tf.embed.__main__ import main as embed
from byol_tf.errors import ConfigError, ProtocolError
from byol_tf.evaluate.__main__ import main as evaluate
from byol_tf.export.__main__ import main as export
from byol_tf.export.saved_model import export_encoder
from byol_tf.models.external_encoders import build_external_encoder
from byol_tf.models.inference import inference_model
from byol_tf.models.networks import build_encoder
from byol_tf.models.teacher import teacher_of_views
from byol_tf.pack.__main__ import main as pack
from byol_tf.predict.__main__ import main as predict
from byol_tf.runs.encoder_files import encoder_files
from byol_tf.runs.encoder_input import FILE_NAME, read_input
from byol_tf.train.experiment import Experiment
from byol_tf.train.normalization import channel_statistics
from pipelines.sources import ArrayImages, PixelFormat

FOLDER = ["data.source=folder", "data.root=photos"]
FIVE = [*FOLDER, "data.channels=5"]
MEAN, STD = (0.1, 0.2, 0.3, 0.4, 0.5), (0.2,) * 5
TINY = [
    *("training.epochs=2", "training.batch_size=16", "optimizer.warmup_epochs=0"),
    *("data.pretrain_images=null", "encoder.width=0.25", "views.size=16", "run.report=false"),
    *("projector.hidden_size=32", "predictor.hidden_size=32", "projector.output_size=16"),
    *("probe.train_images=16", "probe.test_images=16", "probe.neighbours=3"),
    "probe.supervised=false",
]


def images(count: int, seed: int = 0, channels: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4000, (count, 20, 22, channels), np.uint16)


class TestConfig:
    def test_rgb_operations_are_off_and_mean_is_unknown(self):
        config = load_config("few-photos-byol", FIVE)
        for policy in (config.views.first, config.views.second):
            assert (policy.saturation, policy.hue, policy.grayscale_probability) == (0.0,) * 3
            assert policy.brightness == 0.4
        assert config.views.mean is config.views.std is None
        assert config == load_config("few-photos-byol", FIVE).model_validate(
            json.loads(resolved_json(config))
        )

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                [*FIVE, "views.second.hue=0.1"],
                "views.second.hue=0.1: expected 0, as it is for images of 3 channels",
            ),
            ([*FIVE, "views.mean=[0.5,0.5]"], "expected 5 numbers, as data.channels is 5"),
            ([*FOLDER, "views.std=null"], "expected 3 numbers, as data.channels is 3"),
            (["data.channels=1"], 'as data.source "textures" has RGB images of 8 bits'),
            (["data.depth=16"], 'as data.source "textures" has RGB images of 8 bits'),
            ([*FOLDER, "data.range=[5,5]"], "expected two numbers [low, high], low below high"),
            (
                [*FIVE, "encoder.name=keras.applications/MobileNetV2", "encoder.weights=imagenet"],
                "expected null, as ImageNet's weights are for 3 channels",
            ),
        ],
    )
    def test_conflicts_are_named(self, settings, message):
        with pytest.raises(ConfigError, match=re.escape(message)):
            load_config("demo", settings)

    def test_missing_mean_is_offered_as_measured(self, tmp_path):
        experiment = Experiment(
            load_config("demo", [*FIVE, "data.depth=16", *TINY]),
            tmp_path / "run",
            images={"unlabelled": images(32)},
        )
        with pytest.raises(ConfigError) as raised:
            experiment.run()
        assert not (tmp_path / "run").exists()
        mean, std = channel_statistics(ArrayImages(images(32)))
        text = re.sub(r"\s", "", f"--set 'views.mean={mean}' --set 'views.std={std}'")
        assert text in re.sub(r"\s", "", str(raised.value))

    def test_statistics_are_those_of_all_pixels(self):
        mean, std = channel_statistics(ArrayImages(images(8)))
        pixels = images(8).reshape(-1, 5) / 65535
        np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-3)
        np.testing.assert_allclose(std, pixels.std(axis=0), rtol=1e-3)


class TestModels:
    @pytest.mark.parametrize("name", ["convnet", "resnet8"])
    def test_encoder_takes_the_channels(self, name):
        encoder = build_encoder(name, 16, width=0.25, channels=5)
        assert encoder.input_shape == (None, 16, 16, 5)

    def test_application_takes_them_without_the_preprocessing_of_rgb(self):
        encoder = build_external_encoder("keras.applications/MobileNetV2", 32, MEAN, STD)
        assert encoder.input_shape == (None, 32, 32, 5)

    @pytest.mark.parametrize("depth", [8, 16])
    def test_inference_normalises_from_zero_to_white(self, depth):
        views = keras.Input((16, 16, 5))
        encoder = keras.Model(views, keras.layers.GlobalAveragePooling2D()(views))
        inference = inference_model(encoder, 16, MEAN, STD, depth)
        top = 2**depth - 1
        white = np.full((1, 16, 16, 5), top, f"uint{depth}")
        np.testing.assert_allclose(inference(white)[0], (1.0 - np.array(MEAN)) / STD, rtol=1e-5)
        teacher = teacher_of_views(inference, 16, (0.0,) * 5, (1.0,) * 5)
        np.testing.assert_allclose(
            teacher(np.ones((1, 16, 16, 5), np.float32))[0], inference(white)[0], rtol=1e-5
        )

    def test_teacher_of_other_channels_is_refused(self):
        encoder = build_encoder("convnet", 16, width=0.25)
        inference = inference_model(encoder, 16, (0.5,) * 3, (0.2,) * 3)
        with pytest.raises(ProtocolError, match="of 5 channels; received one of 3"):
            teacher_of_views(inference, 16, MEAN, STD)


class TestExport:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("export")
        encoder = build_encoder("convnet", 16, width=0.25, channels=5)
        export_encoder(inference_model(encoder, 16, MEAN, STD, 16), folder, (0.0, 4000.0))
        return folder

    def test_saved_model_takes_arrays_and_no_files(self, folder):
        signatures = tf.saved_model.load(str(folder / "encoder" / "1")).signatures
        assert set(signatures) == {"serve", "serving_default"}
        spec = signatures["serve"].structured_input_signature[1]["images"]
        assert (spec.shape.as_list(), spec.dtype) == ([None, None, None, 5], tf.uint16)

    def test_files_are_loaded_with_the_range_of_their_images(self, folder):
        outputs = []
        for name in ("encoder.keras", "encoder"):
            files = encoder_files(str(folder / name))
            assert files.pixels == PixelFormat(5, 16, (0.0, 4000.0))
            outputs.append(files.load().predict_on_batch(images(2)))
        np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-6)

    def test_usage_has_code_for_arrays(self, folder):
        page = (folder / "USAGE.md").read_text()
        assert "uint16 `[H, W, 5]`: the numbers of its file from 0 to 4,000" in page
        assert "serve_bytes" not in page

    def test_file_without_its_description_is_refused(self, folder, tmp_path):
        (tmp_path / "encoder.keras").write_bytes((folder / "encoder.keras").read_bytes())
        with pytest.raises(ProtocolError, match="takes images of 5 channels and 16 bits"):
            encoder_files(str(tmp_path)).load()

    @pytest.mark.parametrize(
        "text", ["", "[]", '{"channels": 99}', '{"depth": 12}', '{"range": [2, 1]}']
    )
    def test_damaged_description_is_named(self, text, tmp_path):
        (tmp_path / FILE_NAME).write_text(text)
        with pytest.raises(ProtocolError, match=re.escape(FILE_NAME)):
            read_input(tmp_path / FILE_NAME)

    def test_rgb_has_no_description(self, tmp_path):
        (tmp_path / FILE_NAME).write_text("{}")
        encoder = build_encoder("convnet", 16, width=0.25)
        export_encoder(inference_model(encoder, 16, (0.5,) * 3, (0.2,) * 3), tmp_path)
        assert not (tmp_path / FILE_NAME).exists()


@pytest.mark.long
class TestCommands:
    """Every command on a run of TIFF stacks with 16 bits."""

    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory) -> Path:
        root = tmp_path_factory.mktemp("channels")
        for split in ("train", "test"):
            for label in range(2):
                for number, stack in enumerate(images(16, label + 1)):
                    file = root / "photos" / split / f"class{label}" / f"{number}.tif"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    pages = np.moveaxis(stack // (1 + label), 2, 0)
                    tifffile.imwrite(file, pages, photometric="minisblack")
        settings = [
            *("data.source=folder", f"data.root={root / 'photos'}", "data.channels=5"),
            *("data.depth=16", "data.range=[0,4000]", "training.deterministic=true"),
            *(f"views.mean={list(MEAN)}", f"views.std={list(STD)}", *TINY),
        ]
        config = load_config("demo", settings)
        result = Experiment(config, root / "whole").run(verbose=False)

        class Stop(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                raise KeyboardInterrupt

        stopped = Experiment(config, root / "stopped", callbacks=[Stop()])
        with pytest.raises(KeyboardInterrupt):
            stopped.run(verbose=False)
        resumed = Experiment(config, root / "stopped").run(verbose=False)
        assert resumed["weights_digest"] == result["weights_digest"]
        return root / "whole"

    def test_shards_give_the_weights_of_the_folder(self, run, tmp_path):
        out, photos = tmp_path / "shards", str(run.parent / "photos")
        assert pack(["--images", photos, "--out", str(out), "--channels", "5"]) == 0
        config = json.loads((run / "config.json").read_text())
        config["data"] |= {"source": "shards", "root": str(out)}
        (tmp_path / "config.json").write_text(json.dumps(config))
        packed = Experiment(load_config(tmp_path / "config.json"), tmp_path / "run")
        digest = json.loads((run / "result.json").read_text())["weights_digest"]
        assert packed.run(verbose=False)["weights_digest"] == digest
        words = ["--encoder", str(run), "--out", str(tmp_path / "embeddings")]
        assert embed([*words, "--images", str(out)]) == 0
        assert len(np.load(tmp_path / "embeddings" / "embeddings.npy")) == 64

    def test_every_format_is_exported_and_verified(self, run):
        assert export(["--run", str(run), "--format", "saved_model", "keras", "onnx"]) == 0
        assert json.loads((run / "export" / FILE_NAME).read_text())["range"] == [0.0, 4000.0]

    def test_embed_of_run_and_export_are_equal(self, run, tmp_path):
        arrays = []
        for encoder in (run, run / "export" / "encoder.keras"):
            out = tmp_path / encoder.name
            photos = str(run.parent / "photos")
            assert embed(["--encoder", str(encoder), "--images", photos, "--out", str(out)]) == 0
            arrays.append(np.load(out / "embeddings.npy"))
        assert len(arrays[0]) == 64
        np.testing.assert_allclose(*arrays, rtol=1e-4, atol=1e-5)

    def test_classifier_is_trained_and_predicts(self, run, tmp_path):
        classifier, test = str(tmp_path / "classifier"), str(run.parent / "photos" / "test")
        arguments = ["finetune", "--run", str(run), "--epochs", "1", "--rates", "0.001"]
        assert evaluate([*arguments, "--export", classifier]) == 0
        out = ["--out", str(tmp_path / "predictions")]
        assert predict(["--classifier", classifier, "--images", test, *out]) == 0

    def test_linear_protocol_and_probe_learn_the_brightness(self, run):
        assert evaluate(["linear", "--run", str(run), "--epochs", "2", "--rates", "0.3"]) == 0
        assert (run / "figures" / "views.png").exists()
