"""The training command on a folder of real photos, as users have them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_tf.train.__main__ import main

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory) -> Path:
    """A copy of some Imagenette photos: 192 unlabelled, of which one is rotated by EXIF and one
    broken, and 4 + 4 of each of three classes.
    """
    source, copy = photos / "imagenette_stl10like", tmp_path_factory.mktemp("photos") / "photos"
    for path in sorted((source / "unlabeled").glob("*.JPEG"))[:190]:
        (copy / "unlabeled").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy / "unlabeled" / path.name)
    for split in ("train", "test"):
        for name in sorted(path.name for path in (source / split).iterdir())[:3]:
            (copy / split / name).mkdir(parents=True)
            for path in sorted((source / split / name).glob("*.JPEG"))[:4]:
                shutil.copy(path, copy / split / name / path.name)
    image = Image.open(next((copy / "unlabeled").glob("*.JPEG")))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(copy / "unlabeled" / "rotated.jpg", exif=exif)
    (copy / "unlabeled" / "broken.jpg").write_bytes(
        (copy / "unlabeled" / "rotated.jpg").read_bytes()[:2000]
    )
    return copy


def test_photos_recipe_trains_and_exports(folder, tmp_path, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    overrides = [
        f"data.root={folder}",
        f"run.root={tmp_path / 'runs'}",
        "encoder.name=convnet",
        "encoder.width=0.25",
        "views.size=48",
        "projector.hidden_size=64",
        "projector.output_size=32",
        "predictor.hidden_size=64",
        "training.epochs=2",
        "training.batch_size=32",
        "optimizer.warmup_epochs=0",
        "probe.neighbours=5",
    ]
    monkeypatch.chdir(ROOT)
    settings = [part for override in overrides for part in ("--set", override)]
    assert main(["--config", "configs/photos.json", *settings]) == 0
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    run_dir = Path(result["run_dir"])
    assert result["pretrain_images"] == 192  # the broken one too: its header is whole
    assert "all 192 photos to learn from have been read once; 1 can't be read" in printed
    assert (run_dir / "skipped.csv").read_text().splitlines()[1].startswith("unlabeled/broken.jpg,")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    import tensorflow as tf

    encoder = tf.saved_model.load(result["export_dir"])
    several = [
        np.asarray(Image.open(path).convert("RGB"))
        for path in sorted((folder / "test").rglob("*.JPEG"))[:6]
    ]
    representations = np.concatenate([encoder.serve(image[None]).numpy() for image in several])
    assert representations.shape == (6, 32)
    assert np.isfinite(representations).all()
    assert np.linalg.matrix_rank(representations - representations.mean(0)) == 5
