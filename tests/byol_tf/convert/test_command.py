"""The convert command: the folder that it writes, and runs that start from it."""

import io
import json
import logging
import sys
from unittest import mock

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config
from byol_tf.convert.__main__ import main
from byol_tf.errors import ConfigError
from byol_tf.models.from_config import build_config_encoder, build_model
from byol_tf.runs.starting_weights import start_from, starting_weights
from tests.helpers import torch_resnet
from tests.helpers.conversion import images, normalised, saved, without
from tests.reliability.hostile_files import keras_members, write_zip

pytestmark = pytest.mark.usefixtures("shallow")


# the folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Returns the folder that the command wrote, and the tensors that it is from."""
    folder = tmp_path_factory.mktemp("converted")
    tensors = torch_resnet.state_dict()
    assert main(["pytorch", str(saved(folder, tensors)), "--out", str(folder / "out")]) == 0
    return folder / "out", tensors


def test_exports_match_the_original_on_uint8_images(converted):
    folder, tensors = converted
    pixels = images(2, 224)
    expected = torch_resnet.representations(tensors, normalised(pixels))
    of_keras = keras.models.load_model(folder / "encoder.keras")(pixels).numpy()
    np.testing.assert_allclose(of_keras, expected, atol=1e-4)
    saved = tf.saved_model.load(str(folder / "encoder" / "1"))
    np.testing.assert_allclose(saved.serve(pixels).numpy(), of_keras, atol=1e-5)
    assert expected.shape == (2, 32)


def test_folder_has_card_and_config_and_no_temporary_files(converted):
    folder, _ = converted
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "USAGE.md",
        "config.json",
        "encoder",
        "encoder.keras",
    ]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["out", "resnet.safetensors"]
    card = (folder / "README.md").read_text()
    for words in (
        "From `resnet.safetensors`",
        "SHA-256 `",
        "224 px",
        "(0.485, 0.456, 0.406)",
        "its last layer (`fc`)",
        "`symmetric`",
        "* Assumed: torchvision's strides",
        "no dilation",
    ):
        assert words in card
    config = load_config(folder / "config.json")
    assert (config.encoder.name, config.encoder.width, config.encoder.padding) == (
        "resnet18",
        1 / 16,
        "symmetric",
    )
    assert config.encoder.weights == str(folder / "encoder.keras")


def test_error_has_a_message_and_leaves_no_folder(converted, tmp_path, capsys, monkeypatch):
    folder, tensors = converted
    path = saved(tmp_path, without(tensors, "bn1.weight"))
    assert main(["pytorch", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "1 missing: bn1.weight" in capsys.readouterr().err
    assert main(["pytorch", str(folder / ".." / "resnet.safetensors"), "--out", str(folder)]) == 2
    assert (
        f"--out {folder}: expected a new or empty folder; it isn't empty" in capsys.readouterr().err
    )
    assert main(["deepmind", str(tmp_path / "none.pkl"), "--out", str(tmp_path / "out")]) == 2
    assert "expected a file; there is nothing there" in capsys.readouterr().err
    assert main(["pytorch", str(folder / "config.json"), "--out", str(tmp_path / "out")]) == 2
    assert "expected a file of torch.save or a safetensors file" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "safetensors", None)
        assert main(["pytorch", str(path), "--out", str(tmp_path / "out")]) == 2
    assert (
        capsys.readouterr().err
        == "safetensors isn't installed, which reads such a file: pip install safetensors\n"
    )

    line = [
        "pytorch",
        str(folder.parent / "resnet.safetensors"),
        "--out",
        str(tmp_path / "out"),
    ]
    for error in (
        OSError(28, "No space left on device"),
        tf.errors.ResourceExhaustedError(None, None, "No space left on device\nmore"),
    ):
        full = mock.Mock(side_effect=error)
        monkeypatch.setattr("byol_tf.convert.writing.export_encoder", full)
        assert main(line) == 2
        message = f"--out {tmp_path / 'out'}: can't be written: No space left on device\n"
        assert capsys.readouterr().err == message
    assert [entry.name for entry in tmp_path.iterdir()] == ["resnet.safetensors"]


# a run from it


def config_from(folder, **encoder) -> Config:
    """Returns the config of a small run that starts from the folder."""
    tree = json.loads((folder / "config.json").read_text())
    tree["data"] = {"source": "digits", "pretrain_images": 32}
    tree["views"] = {"size": 32}
    tree["encoder"] |= encoder
    tree["projector"] = tree["predictor"] = {"hidden_size": 16}
    tree["training"] = {"epochs": 2, "batch_size": 16}
    return Config.model_validate(tree)


@pytest.mark.long
def test_run_starts_from_the_converted_encoder(converted, tmp_path, caplog):
    from byol_tf.train.experiment import Experiment
    from byol_tf.train.start import initialize_or_resume

    folder, tensors = converted
    experiment = Experiment(config_from(folder), tmp_path / "run")
    experiment.prepare()
    assert not (tmp_path / "run").exists()
    with caplog.at_level(logging.INFO):
        initialize_or_resume(
            experiment.config,
            experiment.folder,
            experiment.model,
            experiment.source,
            experiment.schedule,
            None,
            ["test"],
        )
    pixels = images(2, 32)
    expected = torch_resnet.representations(tensors, normalised(pixels))
    np.testing.assert_allclose(experiment.inference(pixels).numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(
        experiment.model.target_encoder(normalised(pixels)).numpy(), expected, atol=1e-4
    )
    assert f"the encoder starts from {folder / 'encoder.keras'}" in caplog.messages


@pytest.fixture
def loaded(converted, monkeypatch):
    """Returns the folder, and has its `encoder.keras` read once for all tests."""
    folder, _ = converted
    if not _LOADED:
        _LOADED.append(keras.models.load_model(folder / "encoder.keras"))
    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: _LOADED[0])
    return folder


_LOADED = []


def test_online_and_target_start_from_the_converted_encoder(loaded, converted):
    config = config_from(loaded)
    model = build_model(config)
    start_from(model, starting_weights(config.encoder.weights, model.encoder, config))
    x = normalised(images(2, 32))
    expected = torch_resnet.representations(converted[1], x)
    np.testing.assert_allclose(model.encoder(x).numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(model.target_encoder(x).numpy(), expected, atol=1e-4)


def test_weights_of_a_folder_fit_another_image_size(loaded):
    config = config_from(loaded)
    encoder = build_config_encoder(config)
    weights = starting_weights(str(loaded), encoder, config)
    assert weights.keys() == {layer.name for layer in encoder.layers if layer.weights}
    loaded_encoder = _LOADED[0].get_layer("resnet18")
    assert loaded_encoder.input_shape != encoder.input_shape
    for name, arrays in weights.items():
        for ours, theirs in zip(arrays, loaded_encoder.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            {"padding": "same"},
            r"it has besides 5 layers: group2_block1_conv1_pad, .* and 2 more \(encoder.name, stem, .* or padding differs",
        ),
        ({"name": "resnet50"}, r"it lacks 2\d layers: group1_block1_bn3"),
        (
            {"width": 0.125},
            r"\d+ layers have other shapes, as stem_conv with \[\(7, 7, 3, 4\)\] for \[\(7, 7, 3, 8\)\]",
        ),
        ({"stem": "3x3+pool"}, "it has besides 1 layers: stem_conv_pad"),
        ({"normalization": "layer"}, "it lacks"),
        (
            {"weights": "nowhere"},
            r'expected an encoder.keras, or a folder that holds one, .*"imagenet"; received "nowhere"',
        ),
    ],
)
def test_weights_of_another_encoder_are_an_error(loaded, encoder, message):
    config = config_from(loaded, **encoder)
    with pytest.raises(ConfigError, match=f"encoder.weights: .*{message}"):
        starting_weights(config.encoder.weights, build_config_encoder(config), config)


def test_weights_for_another_mean_are_an_error(loaded):
    config = config_from(loaded)
    views = config.views.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    with pytest.raises(
        ConfigError,
        match=r"normalised with mean \[0.485, 0.456, 0.406\], and views.mean is \[0.5, 0.5, 0.5\]",
    ):
        starting_weights(
            config.encoder.weights,
            build_config_encoder(config),
            config.model_copy(update={"views": views}),
        )


def test_file_without_an_exported_encoder_is_an_error(converted, tmp_path):
    config = config_from(converted[0])
    encoder = build_config_encoder(config)
    (tmp_path / "x.keras").write_bytes(b"no archive")
    encoder.save(tmp_path / "bare.keras")
    for name in ("x.keras", "bare.keras"):
        with pytest.raises(
            ConfigError, match=r"expected the encoder.keras of a run or a conversion"
        ):
            starting_weights(str(tmp_path / name), encoder, config)


def test_weights_that_are_not_finite_are_an_error(converted, tmp_path):
    """Keras' safe mode loads them."""
    config = config_from(converted[0])
    members = keras_members(converted[0] / "encoder.keras")
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        file.visititems(
            lambda _, item: (
                item.write_direct(np.full(item.shape, np.nan, item.dtype))
                if item_holds_numbers(item)
                else None
            )
        )
    write_zip(tmp_path / "encoder.keras", members | {"model.weights.h5": weights.getvalue()})
    with pytest.raises(
        ConfigError,
        match=r"encoder.weights: .*encoder.keras: expected .*; weights of it are not finite numbers",
    ):
        starting_weights(str(tmp_path), build_config_encoder(config), config)


def item_holds_numbers(item: h5py.Group | h5py.Dataset) -> bool:
    return isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and item.size > 0


def test_weights_and_padding_exclude_other_keys(converted):
    for encoder, message in (
        (
            {"normalization": "group", "width": 0.25},
            "encoder.weights: expected null, as an exported encoder has other layers in place of",
        ),
        (
            {"name": "convnet", "width": 1.0},
            'encoder.padding: expected "same", its default, as encoder.name "convnet"',
        ),
    ):
        with pytest.raises(ValueError, match=message):
            config_from(converted[0], **encoder)
