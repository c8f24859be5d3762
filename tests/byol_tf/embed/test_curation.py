"""`python -m byol_tf.embed --duplicates --clusters --pick`: tables, sheets, errors."""

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from byol_tf.embed.__main__ import main

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A `.keras` file whose embedding is the photo's 4 x 4 pixels."""
    images = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Resizing(4, 4, crop_to_aspect_ratio=True, antialias=True, dtype="float32")(
        images
    )
    path = tmp_path_factory.mktemp("encoder") / "encoder.keras"
    keras.Model(images, keras.layers.Flatten()(x)).save(path)
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    """Eight photos of each colour, a larger file that is a copy of one, and a broken one."""
    rng, folder = np.random.default_rng(0), tmp_path / "photos"
    for name, colour in COLOURS.items():
        for number in range(8):
            coarse = np.clip(np.add(colour, rng.integers(-40, 40, (6, 6, 3))), 0, 255)
            image = Image.fromarray(coarse.astype(np.uint8)).resize((48, 48))
            (folder / name).mkdir(parents=True, exist_ok=True)
            image.save(folder / name / f"{number}.png")
    Image.open(folder / "red" / "3.png").resize((400, 400)).save(folder / "copy of 3.png")
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


def run(capsys, *arguments) -> tuple[dict, str]:
    """(result, all that was printed)."""
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    return json.loads(printed.splitlines()[-1]), printed


def refused(capsys, *arguments) -> str:
    """The message of a command that ends with 2."""
    try:
        assert main([str(argument) for argument in arguments]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    return capsys.readouterr().err


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_options_combine_in_one_command(encoder, photos, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ("--encoder", encoder, "--images", photos, "--out", out)
    result, printed = run(
        capsys, *arguments, "--duplicates", "--clusters", 3, "--pick", 6, "--page"
    )
    assert result["duplicates"] == {"groups": 1, "photos": 2, "drop": 1}
    assert result["clusters"] == [9, 8, 8] and result["pick"] == 6
    assert [(row["path"], row["suggestion"]) for row in table(out / "duplicates.csv")] == [
        ("copy of 3.png", "keep"),
        ("red/3.png", "drop"),
    ]
    clusters = {row["path"]: row["cluster"] for row in table(out / "clusters.csv")}
    assert len(clusters) == 25 and "broken.jpg" not in clusters
    for name in COLOURS:
        assert len({clusters[f"{name}/{number}.png"] for number in range(8)}) == 1
    picked = table(out / "pick.csv")
    assert len({row["path"] for row in picked}) == 6 and not any(row["label"] for row in picked)
    assert len({row["path"].split("/")[0] for row in picked} & set(COLOURS)) == 3
    for name in ("duplicates", "clusters", "pick"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{out / name}.csv   " in printed and f"{out / name}.png   " in printed
    (photos / "copy of 3.png").unlink()
    result, printed = run(capsys, *arguments, "--duplicates")
    assert "no near-duplicates" in printed and table(out / "duplicates.csv") == []
    assert not (out / "duplicates.png").exists()
    result, _ = run(capsys, *arguments, "--duplicates", 0.5)
    assert result["duplicates"]["photos"] == 24


def test_picked_photos_are_labelled_and_picked_further(encoder, photos, tmp_path, capsys):
    out = tmp_path / "out"
    pick = out / "pick.csv"
    arguments = ("--encoder", encoder, "--images", photos, "--out", out)
    run(capsys, *arguments, "--pick", 4)
    labels = {row["path"]: row["path"].split("/")[0] for row in table(pick)[:3]}
    pick.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in labels.items()))
    before = pick.read_bytes()
    message = refused(capsys, *arguments, "--pick", 5)
    assert f"{pick} has labels (line 2: " in message and "pass it to --few" in message
    assert pick.read_bytes() == before
    result, _ = run(capsys, *arguments, "--pick", 5, "--few", pick)
    assert result["pick"] == 5 and result["few"]["labels"] == 3
    rows = table(pick)
    assert [row["label"] for row in rows[:5]] == [""] * 5
    assert {row["path"]: row["label"] for row in rows[5:]} == labels
    assert not {row["path"] for row in rows[:5]} & set(labels)
    # A path that leads into the folder is the same photo.
    pick.write_text(pick.read_text().replace("\nred/", f"\n{photos}/red/"))
    assert run(capsys, *arguments, "--pick", 2, "--few", pick)[0]["few"]["labels"] == 3
    assert {row["path"]: row["label"] for row in table(pick) if row["label"]} == labels
    pick.write_text("path,label\n,red\n")
    message = refused(capsys, *arguments, "--pick", 5)
    assert message.startswith(f"--pick writes {pick}, which is something else now: {pick}:2: ")


def test_more_than_there_is_and_no_numbers_are_refused(encoder, photos, tmp_path, capsys):
    arguments = ("--encoder", encoder, "--images", photos, "--out", tmp_path / "out")
    for option in ("--clusters", "--pick"):
        assert refused(capsys, *arguments, option, 99) == (
            f"{option} 99: expected at most the 26 photos below {photos}\n"
        )
        assert "expected a whole number of 1 or more; received '0'" in refused(
            capsys, *arguments, option, 0
        )
    assert "expected a number above 0 and at most 1; received '2'" in refused(
        capsys, *arguments, "--duplicates", 2
    )
    assert not (tmp_path / "out").exists()
