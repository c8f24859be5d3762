"""Shards of this disk: which there are, splits, labels, the index, and shards that get lost."""

import io
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.sources import SourceError, open_source, plan_source
from pipelines.sources.shards import index as shard_index
from pipelines.sources.shards.finding import expand_braces, find_shards
from tests.helpers.shard_files import jpeg, tar, webdataset, write_shards


@pytest.fixture(autouse=True)
def _nothing_known():
    """Each test is a new process, as far as the index goes."""
    shard_index._known.clear()
    shard_index._unsaved.clear()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def counts(root, **options) -> tuple[int, int, int]:
    source = open_source("shards", root=str(root), **options)
    plan = plan_source("shards", root=str(root), **options).counts
    found = (len(source.pretrain), len(source.train or ()), len(source.test or ()))
    assert found == (plan["pretrain"], plan["train"], plan["test"])
    return found


class TestFinding:
    @pytest.mark.parametrize(
        ("pattern", "expanded"),
        [
            ("a.tar", ["a.tar"]),
            ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
            ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
            ("{x}", ["x"]),
        ],
    )
    def test_braces_are_those_of_a_shell(self, pattern, expanded):
        assert expand_braces(pattern) == expanded

    def test_folder_pattern_and_file_name_the_same_shards(self, tmp_path):
        write_shards(tmp_path / "x")
        names = ["photos-000.tar", "photos-001.tar", "photos-002.tar"]
        for root in ("x", "x/*.tar", "x/photos-{000..002}.tar", "x/photos-00[0-2].tar"):
            assert [each.name for each in find_shards(str(tmp_path / root))] == names
        (shard,) = find_shards(str(tmp_path / "x/photos-001.tar"))
        assert (shard.name, shard.size) == (
            "photos-001.tar",
            (tmp_path / "x" / names[1]).stat().st_size,
        )

    @pytest.mark.parametrize("name", ["[2023] photos", "a{1,2}", "what?"])
    def test_what_is_there_is_no_pattern(self, tmp_path, name):
        paths = write_shards(tmp_path / name)
        assert [shard.name for shard in find_shards(str(tmp_path / name))] == [
            path.name for path in paths
        ]
        (shard,) = find_shards(str(paths[1]))
        assert (shard.name, shard.location) == (paths[1].name, paths[1])

    def test_hidden_and_other_files_are_no_shards(self, tmp_path):
        write_shards(tmp_path, 1)
        for name in (".photos-9.tar", ".cache/1.tar", "shards.json", "notes.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        assert len(find_shards(str(tmp_path))) == 1

    @pytest.mark.parametrize(
        ("names", "root", "message"),
        [
            ([], "", "there is nothing at "),
            ([], "none", "there is nothing at "),
            (["a.txt"], "", r"files named \.tar, .* found 1 file\(s\) and none of those"),
            (["a.tar.gz"], "", "compressed ones, such as .*a.tar.gz.*gunzip"),
            (["a.tar", "b.parquet"], "", "several formats, parquet, tar; a pattern such as "),
            (["a-0.tar"], "a-{0..1}.tar", "there is no .*a-1.tar"),
            (["a-0.tar"], "b-*.tar", "there is nothing at "),
        ],
    )
    def test_what_isnt_there_is_an_error(self, tmp_path, names, root, message):
        for name in names:
            (tmp_path / name).write_bytes(b"x")
        with pytest.raises(SourceError, match=message):
            find_shards(str(tmp_path / root))

    @pytest.mark.parametrize(
        ("name", "role"),
        [
            ("train-00000.tar", "train"),
            ("imagenet-train-000.tar", "train"),
            ("data/validation-00000-of-00002.parquet", "val"),
            ("test/0.parquet", "test"),
            ("stl10-unlabelled.tfrecord-00000-of-00010", "unlabelled"),
            ("train-00000-of-01024", "train"),
            ("train_test.tar", None),
            ("photos-000.tar", None),
            ("trains-0.tar", None),
        ],
    )
    def test_split_is_what_the_name_says(self, tmp_path, name, role):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        (shard,) = find_shards(str(tmp_path))
        assert shard.role == role


class TestSplits:
    def test_labels_of_webdataset_are_divided_by_the_seed(self, tmp_path):
        write_shards(tmp_path)
        assert counts(tmp_path) == (24, 20, 4)
        source = open_source("shards", root=str(tmp_path))
        assert source.class_names == ("0", "1")
        assert np.array_equal(source.pretrain[0], source.train[0])
        for index in range(20):  # `webdataset` numbers images, and their classes are modulo 2
            number = next(
                n for n in range(24) if np.array_equal(pixels(jpeg(n)), source.train[index])
            )
            assert source.train.labels[index] == number % 2

    def test_splits_by_names_with_labels(self, tmp_path):
        for name, first, count in (("train-0", 0, 6), ("train-1", 6, 6), ("validation-0", 50, 4)):
            (tmp_path / f"{name}.tar").write_bytes(webdataset(first, count))
        (tmp_path / "unlabelled-0.tar").write_bytes(tar({f"{n}.jpg": jpeg(n) for n in range(5)}))
        assert counts(tmp_path) == (5, 12, 4)

    def test_folders_of_members_are_classes_below_any_folder(self, tmp_path):
        for top in ("", "photos/", "./photos/"):
            members = {f"{top}{name}/{n}.jpg": jpeg(n) for name in ("cat", "dog") for n in range(5)}
            (tmp_path / "x.tar").write_bytes(tar(members))
            shard_index._known.clear()
            assert counts(tmp_path) == (10, 8, 2)
            assert open_source("shards", root=str(tmp_path)).class_names == ("cat", "dog")

    def test_layout_flat_ignores_labels(self, tmp_path):
        write_shards(tmp_path)
        assert counts(tmp_path, layout="flat") == (24, 0, 0)

    def test_captions_are_no_classes(self, tmp_path):
        members = {}
        for number in range(150):
            members |= {f"{number}.jpg": jpeg(0), f"{number}.txt": b"photo %d" % number}
        (tmp_path / "x.tar").write_bytes(tar(members))
        plan = plan_source("shards", root=str(tmp_path))
        assert (plan.counts["pretrain"], plan.classes) == (150, 0)
        assert "these are no classes" in plan.notes[2]

    def test_class_with_a_slash_or_named_like_a_split(self, tmp_path):
        rows = {"image": [jpeg(n) for n in range(8)], "label": ["a/b", "train", "2019", "a"] * 2}
        pq.write_table(pa.table(rows), tmp_path / "x.parquet")
        source = open_source("shards", root=str(tmp_path))
        assert source.class_names == ("2019", "a", "a/b", "train")
        assert (len(source.train), len(source.test)) == (4, 4)

    def test_image_only_shards_without_an_image_are_an_error(self, tmp_path):
        (tmp_path / "x.tar").write_bytes(tar({"a.npy": b"1"}))
        with pytest.raises(SourceError, match=r"1 shard\(s\) without an image"):
            plan_source("shards", root=str(tmp_path))


class TestIndex:
    def test_index_is_read_from_the_cache_until_a_shard_changes(self, tmp_path, monkeypatch):
        paths = write_shards(tmp_path / "x")
        options = {"root": str(tmp_path / "x"), "scan_folder": str(tmp_path)}
        first = open_source("shards", **options)
        assert not list(tmp_path.glob(".shards-*"))  # nothing is written unasked
        first.save_scan()
        read = []
        original = shard_index.index_shard
        monkeypatch.setattr(
            shard_index,
            "index_shard",
            lambda shard, **options: read.append(shard.name) or original(shard, **options),
        )
        shard_index._known.clear()
        again = open_source("shards", **options)
        assert read == []
        assert all(map(np.array_equal, first.pretrain, again.pretrain))
        paths[1].write_bytes(webdataset(100, 7))
        shard_index._known.clear()
        assert len(open_source("shards", **options).pretrain) == 23
        assert read == ["photos-001.tar"]

    @pytest.mark.parametrize(
        "damage",
        [lambda data: data[:-9], lambda data: b"", lambda data: data[:70] + b"x" + data[71:]],
    )
    def test_damaged_cache_counts_as_missing(self, tmp_path, damage):
        write_shards(tmp_path / "x")
        options = {"root": str(tmp_path / "x"), "scan_folder": str(tmp_path)}
        open_source("shards", **options).save_scan()
        (cache,) = tmp_path.glob(".shards-*")
        cache.write_bytes(damage(cache.read_bytes()))
        shard_index._known.clear()
        assert len(open_source("shards", **options).pretrain) == 24

    def test_progress_is_told_in_images_and_ends_with_all(self, tmp_path):
        write_shards(tmp_path)
        (tmp_path / "photos-003.tar").write_bytes(webdataset(50, 40))
        calls: list[tuple] = []
        plan_source("shards", root=str(tmp_path), on_progress=lambda *call: calls.append(call))
        assert [done for _, done, _ in calls] == [8, 16, 24, 64]
        assert all(done < total for _, done, total in calls[:-1])
        assert calls[-1] == ("indexing shards", 64, 64)

    def test_truncated_shard_is_named(self, tmp_path):
        paths = write_shards(tmp_path)
        paths[1].write_bytes(paths[1].read_bytes()[:5_000])
        with pytest.raises(SourceError, match=f"{paths[1]}: .*behind . images. Copy or write"):
            plan_source("shards", root=str(tmp_path))


class TestLosses:
    def open(self, root, lost: list, **options):
        return open_source(
            "shards",
            root=str(root),
            cache="none",
            max_unreadable_fraction=0.4,
            on_lost=lambda path, reason: lost.append((path, reason)),
            **options,
        )

    def test_images_of_a_lost_shard_are_replaced_by_others_of_their_label(self, tmp_path):
        paths, lost = write_shards(tmp_path), []
        source = self.open(tmp_path, lost)
        paths[1].unlink()
        known = {pixels(jpeg(n)).tobytes(): n % 2 for n in (*range(8), *range(16, 24))}
        for index, label in enumerate(source.train.labels):
            assert known[source.train[index].tobytes()] == label
        assert {reason for _, reason in lost} == {"its shard is gone"}
        assert all(path.startswith("photos-001.tar/0000") for path, _ in lost)

    def test_shard_that_is_truncated_in_mid_run(self, tmp_path):
        paths, lost = write_shards(tmp_path), []
        source = self.open(tmp_path, lost)
        size = paths[1].stat().st_size
        with paths[1].open("r+b") as file:
            file.truncate(3_000)
        [source.train[index] for index in range(len(source.train))]
        assert lost[0][1] == f"its shard changed while it was used: 3,000 bytes, {size:,} before"

    def test_too_many_lost_images_end_the_run(self, tmp_path):
        paths, lost = write_shards(tmp_path), []
        source = self.open(tmp_path, lost)
        for path in paths[:2]:
            path.unlink()
        with pytest.raises(SourceError, match="read that passed the check at the start"):
            [source.pretrain[index] for index in range(24)]
        assert "photos-00" in str(source.failure())

    def test_unreadable_image_is_skipped_and_named(self, tmp_path):
        members = {f"{n}.jpg": jpeg(n) for n in range(20)} | {"7.jpg": b"no photo", "8.jpg": b""}
        (tmp_path / "x.tar").write_bytes(tar(members))
        source = self.open(tmp_path, [])
        assert source.skipped == (
            ("x.tar/7.jpg", "not an image of a supported format"),
            ("x.tar/8.jpg", "empty file"),
        )
        assert len(source.pretrain) == 18

    def test_only_headers_are_read_before_the_first_use(self, tmp_path, monkeypatch):
        cut = jpeg(7)[:-300]
        members = {f"{n}.jpg": jpeg(n) for n in range(20)} | {"7.jpg": cut, "8.jpg": b"no photo"}
        (tmp_path / "x.tar").write_bytes(tar(members))
        lost: list = []
        with monkeypatch.context() as patch:
            patch.setattr(
                "pipelines.sources.folder.reader.PhotoReader.read",
                lambda self, path: pytest.fail(path),
            )
            source = self.open(tmp_path, lost, check="headers")
        assert source.skipped == (("x.tar/8.jpg", "not an image of a supported format"),)
        for index in range(19):
            source.pretrain[index]
        assert [path for path, _ in lost] == ["x.tar/7.jpg"]

    def test_resumed_run_has_the_shards_that_it_began_with(self, tmp_path):
        paths = write_shards(tmp_path / "x")
        options = {"scan_folder": str(tmp_path)}
        begun = self.open(tmp_path / "x", [], **options)
        begun.save_scan()
        (tmp_path / "x" / "photos-003.tar").write_bytes(webdataset(50, 8))
        shutil.move(paths[1], tmp_path / "moved.tar")
        shard_index._known.clear()
        lost: list = []
        resumed = self.open(tmp_path / "x", lost, manifest=begun.manifest, **options)
        assert len(resumed.pretrain) == 24
        assert [resumed.pretrain[n].tobytes() for n in range(8)] == [
            begun.pretrain[n].tobytes() for n in range(8)
        ]
        assert np.array_equal(resumed.pretrain[16], begun.pretrain[16])
        resumed.pretrain[8]
        assert lost[0] == ("photos-001.tar/000008.jpg", "its shard is gone or has changed")
        assert resumed.manifest == begun.manifest
        shard_index._known.clear()
        with pytest.raises(SourceError, match=r"1 of 3 shards .*gone or have changed \(photos-001"):
            open_source(
                "shards", root=str(tmp_path / "x"), manifest=begun.manifest, cache="none", **options
            )

    def test_parquet_of_many_row_groups_is_read_within_bounded_memory(self, tmp_path, monkeypatch):
        monkeypatch.setattr("pipelines.sources.shards.reading._ROW_GROUP_BYTES", 3_000)
        rows = pa.table({"image": [jpeg(n) for n in range(30)]})
        pq.write_table(rows, tmp_path / "x.parquet", row_group_size=4)
        source = open_source("shards", root=str(tmp_path), cache="none")
        for index in np.random.default_rng(0).permutation(30):
            assert np.array_equal(source.pretrain[int(index)], pixels(jpeg(int(index))))


def test_headers_of_the_index_are_those_that_a_folder_states(tmp_path):
    """Opened by headers, nothing is read but the index; and as much is known as of a folder."""
    turned, deep = io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(jpeg(1, size=(30, 20)))).save(turned, "JPEG", exif=exif)
    Image.fromarray(np.full((20, 30), 4095, np.uint16)).save(deep, "PNG")
    files = {"a.jpg": jpeg(0, size=(30, 20)), "b.jpg": turned.getvalue(), "c.png": deep.getvalue()}
    files |= {"d.jpg": b"no photo", "e.jpg": jpeg(0)[:-200]}
    (tmp_path / "folder").mkdir()
    (tmp_path / "shards").mkdir()
    for name, content in files.items():
        (tmp_path / "folder" / name).write_bytes(content)
    (tmp_path / "shards" / "x.tar").write_bytes(tar(files))
    options = {"check": "headers", "max_unreadable_fraction": 0.5, "on_lost": lambda *_: None}
    folder = open_source("folder", root=str(tmp_path / "folder"), **options)
    shards = open_source("shards", root=str(tmp_path / "shards"), **options)
    assert shards.findings == folder.findings
    assert (shards.find_copies(), shards.leaked) == ((), None)
    assert [name.removeprefix("x.tar/") for name, _ in shards.skipped] == ["d.jpg"]
    assert dict(folder.skipped)["d.jpg"] == dict(shards.skipped)["x.tar/d.jpg"]
    shapes = [[each.shape_of(n) for n in range(4)] for each in (folder.pretrain, shards.pretrain)]
    assert shapes[0] == shapes[1]
    assert all(map(np.array_equal, folder.pretrain, shards.pretrain))
