"""Encoders by their address on the hub, which a server on this machine stands in for."""

import builtins
import re

import numpy as np
import pytest

from byol_tf.errors import EmbedError
from byol_tf.runs.encoder_files import encoder_files
from byol_tf.runs.hub import encoder_path
from pipelines.extras import install_line
from tests.helpers.hub import stand_in

pytest.importorskip("huggingface_hub", reason="huggingface_hub isn't installed (extra hub)")


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with stand_in(monkeypatch) as server:
        yield server


def test_encoder_is_downloaded_once_and_loaded(server, tmp_path):
    import keras

    from byol_tf.models.inference import inference_model

    pixels = keras.Input((8, 8, 3))
    encoder = keras.Model(pixels, keras.layers.Dense(4)(keras.layers.Flatten()(pixels)))
    model = inference_model(encoder, 8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    model.save(tmp_path / "encoder.keras")
    server.files = {
        "encoder.keras": (tmp_path / "encoder.keras").read_bytes(),
        "README.md": b"# An encoder",
    }
    files = encoder_files("hf://me/encoder")
    images = np.zeros((2, 9, 9, 3), np.uint8)
    np.testing.assert_array_equal(files.load()(images), model(images))
    downloads = [path for path in server.paths if "/resolve/" in path]
    assert downloads and all(path.endswith("/encoder.keras") for path in downloads)
    again = encoder_files("hf://me/encoder@main")
    assert again.digest == files.digest
    assert [path for path in server.paths if "/resolve/" in path] == downloads


def test_encoder_without_a_keras_file_is_the_saved_model(server):
    server.files = {"encoder/1/saved_model.pb": b"graph"}
    assert encoder_files("hf://me/encoder").path.name == "1"


def test_refusal_names_the_address(server):
    server.refuses = True
    with pytest.raises(EmbedError, match="--encoder hf://me/encoder: expected an encoder on the"):
        encoder_path("hf://me/encoder")


@pytest.mark.parametrize("text", ["hf://encoder", "hf://me/a b", "hf://me/encoder/1", "hf://"])
def test_address_of_another_form_is_refused(text):
    with pytest.raises(EmbedError, match="expected hf://NAME/REPOSITORY"):
        encoder_path(text)


def test_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def without_hub(name, *given):
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *given)

    monkeypatch.setattr(builtins, "__import__", without_hub)
    with pytest.raises(EmbedError, match=re.escape(install_line("hub"))):
        encoder_path("hf://me/encoder")
