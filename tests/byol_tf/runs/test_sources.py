"""Images that a run names: where they are, and whether they are those that it was trained on."""

import json
from pathlib import Path

import pytest
from PIL import Image

from byol_tf.config.loading import absolute_paths, load_config
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.sources import source_options, warn_of_other_images
from pipelines.sources import open_source, plan_source


@pytest.fixture
def photos(tmp_path) -> Path:
    for number in range(4):
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return tmp_path / "photos"


def test_absolute_paths_are_those_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = load_config("photos", ["data.root=a/../b", "encoder.weights=~/encoder.keras"])
    assert (config.data.root, config.encoder.weights) == ("a/../b", "/home/me/encoder.keras")
    absolute = absolute_paths(config)
    assert absolute.data.root == str(tmp_path / "b")
    assert absolute.encoder.weights == "/home/me/encoder.keras"
    assert absolute_paths(absolute) == absolute
    assert absolute_paths(load_config("demo")) == load_config("demo")


@pytest.mark.parametrize("key", ["data.root", "data.archive", "encoder.weights", "run.root"])
def test_tilde_is_the_home_folder(key, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    recipe = "stl10" if key == "data.archive" else "photos"
    section, name = key.split(".")
    config = load_config(recipe, [f"{key}=~/x"])
    assert getattr(getattr(config, section), name) == "/home/me/x"


def test_photos_that_are_not_the_runs_are_reported(photos, tmp_path, caplog):
    config = load_config("photos", [f"data.root={photos}"])
    folder = RunFolder(tmp_path / "run")
    source = open_source(**source_options(config))
    folder.root.mkdir()
    folder.environment.write_text(json.dumps({"data_fingerprint": source.fingerprint}))
    warn_of_other_images(folder, source)
    warn_of_other_images(folder, plan_source(**source_options(config)))
    warn_of_other_images(folder, plan_source("textures"))
    assert caplog.messages == []
    Image.new("RGB", (8, 8)).save(photos / "new.png")
    for look in (open_source, plan_source):
        caplog.clear()
        warn_of_other_images(folder, look(**source_options(config)))
        (message,) = caplog.messages
        assert message.startswith(f"the photos aren't those that {folder.root} was trained on")
