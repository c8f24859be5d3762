"""Row 9: a folder of photos of which many are broken or odd. Good and bad are all that is listed;
each bad one once, with its reason."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.sources import PhotoManifest, SourceError, open_source
from pipelines.sources.decoding import decode
from pipelines.sources.folder.discovery import SUFFIXES, printable
from pipelines.sources.image_file import UnreadableImage
from tests.helpers.waiting import HANG
from tests.reliability.broken_photos import EPS, KINDS, encoded, pixels

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def open_to_all():
    """A folder that a child without root's rights can reach, which pytest's own aren't."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def digest(path: Path) -> str:
    image = np.asarray(Image.open(path).convert("RGB"))
    return hashlib.sha256(image.tobytes() + str(image.shape).encode()).hexdigest()


def make(root: Path, photos: int, broken: int) -> tuple[dict[str, str], dict[Path, str]]:
    """Good photos by name with their digests, and the files of the 24 kinds with their kind."""
    root.mkdir()
    root.chmod(0o777)
    draw = np.random.default_rng(0)
    good = {}
    for number in range(photos):
        path = root / f"photo_{number:04d}.png"
        Image.fromarray(pixels(draw)).save(path)
        good[path.name] = digest(path)
    names = list(KINDS)
    odd = {
        KINDS[names[n % len(names)]].write(root / f"odd_{n:04d}", draw): names[n % len(names)]
        for n in range(broken)
    }
    (root / "folder.jpg").mkdir()
    return good, odd


def child(root: Path, limit: float) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tests.reliability.photos_child", str(root), str(limit)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


def check_counts(
    root: Path, found: dict, good: dict[str, str], odd: dict[Path, str], lost: list[str]
) -> int:
    """Good and bad are all that a folder lists, each bad one once; returns how many those are.

    Args:
        root: of the folder.
        found: what the child found.
        good, odd: what `make` made.
        lost: the names of good ones that vanished.
    """
    listed = [
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.name != "folder.jpg"
    ]
    bad = dict(found["skipped"])
    assert len(found["good"]) + len(found["skipped"]) == len(listed) + len(lost)
    assert len(bad) == len(found["skipped"]), "a file is listed twice"
    assert all(reason and len(reason) <= 120 for reason in bad.values())
    by_name = {printable(path.name): kind for path, kind in odd.items()}
    assert set(bad) <= set(by_name) | set(lost)
    for name, kind in by_name.items():
        if kind != "odd name":
            assert (name in bad) != KINDS[kind].good, (name, kind, bad.get(name))
    for path, kind in odd.items():
        if kind == "odd name":
            assert (printable(path.name) in bad) == (path.read_bytes() == b"no")
    assert all("No such file" in bad[name] for name in lost)
    closed = [bad[name] for name, kind in by_name.items() if kind == "no permission"]
    assert set(closed) == {"Permission denied"}

    # What is good is as it would be alone, and no half picture has come in: each is either a photo
    # or a whole odd one.
    counts = Counter(found["good"])
    for name, value in good.items():
        if name not in lost:
            assert counts[value] == 1
    return len(listed) + len(lost)


def test_500_broken_files_of_24_kinds(open_to_all, report):
    root = open_to_all / "photos"
    assert len(KINDS) == 24
    good, odd = make(root, photos=300, broken=500)
    lost = [f"photo_{number:04d}.png" for number in range(0, 100, 10)]
    (open_to_all / "VANISH.txt").write_text("\n".join(lost))
    done = child(root, 1.0)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    listed = check_counts(root, found, good, odd, lost)
    assert listed == 800
    read, bad = len(found["good"]), len(found["skipped"])
    report(
        9,
        f"{len(odd)} files of {len(KINDS)} kinds, {len(lost)} vanishing: {read} read, {bad} listed "
        "once",
        listed,
    )

    stopped = child(root, 0.1)
    assert stopped.returncode == 2
    assert (
        "more than data.max_unreadable_fraction = 0.1 allows; "
        in json.loads(stopped.stdout)["error"]
    )


def test_a_reader_that_hides_a_broken_file_is_noticed(open_to_all):
    """The control: of 24 files, one of each kind, it passes one over."""
    root = open_to_all / "photos"
    good, odd = make(root, photos=3, broken=len(KINDS))
    assert check_counts(root, json.loads(child(root, 1.0).stdout), good, odd, []) == 3 + len(KINDS)
    hidden = next(path for path, kind in odd.items() if kind == "cut PNG")
    (open_to_all / "HIDE.txt").write_text(hidden.name)
    with pytest.raises(AssertionError):
        check_counts(root, json.loads(child(root, 1.0).stdout), good, odd, [])


def test_without_the_list_of_kinds_ghostscript_would_be_asked(tmp_path, monkeypatch):
    """The control: of an EPS by the name of a JPEG, Pillow alone runs a program."""
    (tmp_path / "evil.jpg").write_bytes(EPS)
    ran = []

    def started(program, *arguments, **options):
        ran.append(program)
        raise OSError("not here")

    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True, raising=False)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs", raising=False)
    monkeypatch.setattr(subprocess, "check_call", started)
    with Image.open(tmp_path / "evil.jpg") as image, pytest.raises(OSError, match="not here"):
        image.load()
    assert ran, "Pillow asks another way now"
    ran.clear()
    with pytest.raises(SourceError):
        open_source("folder", root=str(tmp_path))
    assert not ran


def test_without_the_checksums_half_a_picture_is_read(monkeypatch):
    """The control: PNGs that are zeros from somewhere on, as a disk leaves them that lost power."""
    whole = (
        np.arange(64)[:, None, None] * 2 + np.random.default_rng(0).integers(0, 100, (64, 48, 3))
    ).astype(np.uint8)
    data = encoded(Image.fromarray(whole), "PNG")
    cut = [data[:start] + bytes(len(data) - start) for start in range(200, len(data) - 200, 20)]

    def half_read() -> int:
        read = 0
        for file in cut:
            with contextlib.suppress(UnreadableImage):
                read += not np.array_equal(decode(io.BytesIO(file))[0], whole)
        return read

    assert half_read() == 0
    monkeypatch.setattr("pipelines.sources.image_file._check_png", lambda file: None)
    assert half_read() > 0


class TestLostInMidRun:
    """Photos that go when all have been read once."""

    @staticmethod
    def opened(tmp_path, limit, told, classes=("a", "b")):
        for number in range(20):
            for name in classes:
                path = tmp_path / "train" / name / f"{number:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(
                    np.full((8 + number % 3, 9, 3), 10 * number + classes.index(name), np.uint8)
                ).save(path)
        return open_source(
            "folder",
            root=str(tmp_path),
            cache="none",
            max_unreadable_fraction=limit,
            pretrain="train",
            on_lost=lambda path, reason: told.append((path, reason)),
        )

    def test_another_of_its_class_takes_its_place_and_all_others_stay(self, tmp_path):
        told = []
        source = self.opened(tmp_path, 0.2, told)
        train = [image.copy() for image in source.train]
        labels = source.train.labels
        values = {int(image[0, 0, 0]) for image in train}
        gone = tmp_path / "train" / "a" / f"{int(train[3][0, 0, 0]) // 10:02d}.png"
        cut = tmp_path / "train" / "b" / f"{int(train[-1][0, 0, 0]) // 10:02d}.png"
        gone.unlink()
        cut.write_bytes(cut.read_bytes()[:60])
        for _ in range(2):
            for index, image in enumerate(source.train):
                if index in (3, len(train) - 1):
                    assert int(image[0, 0, 0]) in values
                    assert int(image[0, 0, 0]) % 10 == labels[index]
                else:
                    np.testing.assert_array_equal(image, train[index])
        assert sorted(path for path, _ in told) == sorted(
            str(path.relative_to(tmp_path)) for path in (gone, cut)
        )
        assert source.failure() is None

    def test_too_many_stop_with_examples(self, tmp_path):
        told = []
        source = self.opened(tmp_path, 0.1, told)
        for path in list((tmp_path / "train" / "a").iterdir())[:12]:
            path.unlink()
        with pytest.raises(
            SourceError, match=r"than data.max_unreadable_fraction allows. For example train/a/"
        ):
            for image in source.train:
                assert image.shape[2] == 3
        assert isinstance(source.failure(), SourceError)
        assert len(told) == 5  # of 40 photos 4 may be lost

    def test_a_pipe_in_its_place_is_not_waited_for(self, tmp_path):
        told = []
        source = self.opened(tmp_path, 0.2, told)
        path = next((tmp_path / "train" / "b").iterdir())
        path.unlink()
        os.mkfifo(path)
        assert sum(1 for _ in source.train) == len(source.train)
        assert {reason for _, reason in told} <= {"not a regular file"}


@pytest.mark.long
@pytest.mark.parametrize(("taken", "code"), [(1, 0), (9, 66)])
def test_photos_that_vanish_while_the_command_runs(tmp_path, taken, code, report):
    """One of 200 is told of, listed and replaced; nine are too many, and the run stops with the
    code that is documented."""
    draw, root, run = np.random.default_rng(0), tmp_path / "photos", tmp_path / "run"
    root.mkdir()
    for number in range(200):
        Image.fromarray(pixels(draw)).save(root / f"{number:03d}.{'jpg' if number % 2 else 'png'}")
    settings = [
        "data.source=folder",
        f"data.root={root}",
        "data.cache=none",
        "data.image_size=null",
        "data.max_unreadable_fraction=0.02",
    ]
    settings += [
        "training.epochs=4",
        "training.batch_size=16",
        "views.size=32",
        "optimizer.warmup_epochs=1",
        "data.pretrain_images=null",
    ]
    arguments = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "byol_tf.train", "--run-dir", str(run), *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not (run / "history.csv").exists():
            time.sleep(0.1)
        for number in range(taken):
            (root / f"{20 * number:03d}.png").unlink()
        out, err = process.communicate(timeout=HANG)
    assert process.returncode == code, err[-2000:]
    assert len(list(tmp_path.glob(".photos-*.json"))) == 1  # for the next start
    rows = (run / "skipped.csv").read_text().splitlines()
    told = [line for line in out.splitlines() if "can't be read:" in line]
    assert rows[0] == "path,reason"
    assert len(rows) - 1 == len(set(rows[1:])) == len(told)
    assert len(told) == 1 if code == 0 else len(told) > 200 * 0.02
    assert all(row.endswith(",No such file or directory") for row in rows[1:])
    assert ("Bring them back" in err) == (code == 66)
    report(
        9,
        f"{taken} of 200 photos taken away in mid-run: exit code {code}, {len(told)} listed",
        taken,
    )


@pytest.mark.parametrize(
    "layout",
    ["empty", "fewer than a batch", "one class", "all of one class are broken", "labels outside"],
)
def test_what_cannot_be_learned_from_is_an_error_before_training(
    tmp_path, layout, capsys, monkeypatch
):
    from byol_tf.train.__main__ import main

    draw = np.random.default_rng(0)
    root = tmp_path / "photos"
    root.mkdir()
    counts = {"fewer than a batch": {"a": 3, "b": 3}, "one class": {"train/a": 9, "test/a": 3}}
    both = {"train/a": 9, "train/b": 9, "test/a": 3, "test/b": 3}
    for name, count in ({} if layout == "empty" else counts.get(layout, both)).items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(pixels(draw)).save(root / name / f"{number}.png")
    if layout == "all of one class are broken":
        for path in (root / "train" / "b").iterdir():
            path.write_bytes(b"no")
    if layout == "labels outside":
        from pipelines.sources.folder import source as folder

        lay_out = folder.lay_out

        def shifted(*arguments):
            laid = lay_out(*arguments)
            laid.labels["test"] += 1
            return laid

        monkeypatch.setattr(folder, "lay_out", shifted)
    arguments = [
        "--run-dir",
        str(tmp_path / "run"),
        "--set",
        "data.source=folder",
        "--set",
        f"data.root={root}",
    ]
    arguments += [
        "--set",
        "data.pretrain_images=null",
        "--set",
        "training.batch_size=8",
        "--set",
        "data.max_unreadable_fraction=0.5",
    ]
    assert main(arguments) == 2
    expected = {
        "empty": "holds no photos",
        "fewer than a batch": "training.batch_size: expected at most the number of pre-training "
        "images, 6; received 8",
        "one class": "has one class folder (a)",
        "all of one class are broken": "the readable images of train are all of one class",
        "labels outside": "labels of test: expected 0 to 1; received 1 to 2",
    }
    assert expected[layout] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


OPTIONS = {"cache": "none", "max_unreadable_fraction": 0.2, "pretrain": "train"}


class TestGoneOnWith:
    """A run that goes on with the photos that it began with."""

    @pytest.fixture
    def began(self, tmp_path):
        """(folder, what it was opened as): of 40 photos, one is no image."""
        TestLostInMidRun.opened(tmp_path, 0.2, [])
        (tmp_path / "train" / "a" / "07.png").write_bytes(b"no")
        return tmp_path, open_source(
            "folder", root=str(tmp_path), on_lost=lambda *_: None, **OPTIONS
        )

    def again(self, root, source, told, **options):
        manifest = PhotoManifest.from_bytes(source.manifest.to_bytes())
        assert manifest == source.manifest
        return open_source(
            "folder",
            root=str(root),
            on_lost=lambda *lost: told.append(lost),
            manifest=manifest,
            **OPTIONS | options,
        )

    @pytest.mark.parametrize("cache", ["none", "memory"])
    def test_order_and_all_other_photos_stay_whatever_became_of_the_folder(self, began, cache):
        root, source = began
        train, told = [image.copy() for image in source.train], []
        size = {"image_size": 8} if cache == "memory" else {}
        Image.fromarray(np.full((8, 9, 3), 9, np.uint8)).save(
            root / "train" / "a" / "07.png"
        )  # mended
        Image.fromarray(np.full((8, 9, 3), 9, np.uint8)).save(root / "train" / "a" / "00-new.png")
        (root / "train" / "b" / "03.png").unlink()
        later = self.again(root, source, told, cache=cache, **size)
        assert (later.fingerprint, later.skipped, later.manifest) == (
            source.fingerprint,
            source.skipped,
            source.manifest,
        )
        np.testing.assert_array_equal(later.train.labels, source.train.labels)
        lost = [index for index, image in enumerate(train) if image[0, 0, 0] == 31]
        for index, image in enumerate(later.train):
            if index in lost:
                assert image[0, 0, 0] % 10 == 1
            else:
                assert image[0, 0, 0] == train[index][0, 0, 0]
        assert len(lost) == 1
        assert told == [("train/b/03.png", "No such file or directory")]

    def test_what_was_read_once_is_not_looked_at_again(self, began, monkeypatch):
        root, source = began
        monkeypatch.setattr(
            "pipelines.sources.folder.reader.PhotoReader.read", lambda self, path: pytest.fail(path)
        )
        later = self.again(root, source, [])
        assert len(later.train) == len(source.train) > 30
        assert later.train.shape == source.train.shape

    def test_other_photos_are_refused(self, began):
        root, source = began
        for path in list((root / "train" / "a").iterdir())[:9]:
            path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(
            SourceError,
            match=r"of 40 photos that this run began with are gone or have changed.*start a new run",
        ):
            self.again(root, source, [])

    def test_names_that_are_no_text_come_back(self):
        manifest = PhotoManifest(
            {os.fsdecode(b"caf\xe9.jpg"): 3, "a\nb.png": 4},
            {},
            (("x", "y"),),
            {"train": (2, 3, 3), "test": None},
        )
        assert PhotoManifest.from_bytes(manifest.to_bytes()) == manifest

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"no",
            gzip.compress(b"[]"),
            gzip.compress(b'{"sizes": 1}'),
            PhotoManifest({}, {}, (), {}).to_bytes()[:-9],
        ],
        ids=["nothing", "text", "a list", "other fields", "half of it"],
    )
    def test_another_file_is_none(self, content):
        with pytest.raises(ValueError, match="expected the list of photos that a run wrote"):
            PhotoManifest.from_bytes(content)


@pytest.mark.long
def test_a_run_whose_photo_went_goes_on_after_a_break(tmp_path, report):
    """By the command: stopped after its first epoch; then one photo is gone and another one has
    come."""
    draw, root, run = np.random.default_rng(0), tmp_path / "photos", tmp_path / "run"
    root.mkdir()
    for number in range(64):
        Image.fromarray(pixels(draw)).save(root / f"{number:03d}.png")
    settings = [
        "data.source=folder",
        f"data.root={root}",
        "data.cache=none",
        "data.image_size=null",
        "data.max_unreadable_fraction=0.02",
    ]
    settings += [
        "training.epochs=3",
        "training.batch_size=16",
        "views.size=32",
        "optimizer.warmup_epochs=1",
        "data.pretrain_images=null",
    ]
    command = [
        sys.executable,
        "-m",
        "byol_tf.train",
        "--run-dir",
        str(run),
        *(word for each in settings for word in ("--set", each)),
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and len(list((run / "checkpoints").glob("epoch-*"))) < 1:
            time.sleep(0.05)
        process.terminate()
        assert process.communicate(timeout=HANG)[1] is not None
    assert process.returncode == 143
    (root / "020.png").unlink()
    Image.fromarray(pixels(draw)).save(root / "000-new.png")
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=HANG, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "resuming after epoch" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("warning: 020.png")] == [
        "warning: 020.png can't be read: No such file or directory; another photo takes its place"
    ]
    report(
        9,
        "stopped, a photo taken away and another added: goes on with the photos that it began with",
        1,
    )
