"""Photos and shards behind URLs: what is read, and which requests are made for it."""

import asyncio
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from byol_tf.config.loading import absolute_paths, load_config
from pipelines import batches
from pipelines.batches import crop_batches, image_batches
from pipelines.policy import preset
from pipelines.sources import SourceError, open_flat_images, open_source, plan_source, remote
from pipelines.sources.loading import map_in_order
from pipelines.sources.remote import RemotePath
from pipelines.sources.shards import index as shard_index
from pipelines.sources.shards.finding import find_shards
from pipelines.sources.shards.index import IndexCache
from tests.helpers.shard_files import PATTERN, jpeg, same, serving, tar, write_shards
from tests.helpers.waiting import HANG
from tests.pipelines.sources.folder.test_source import tree

pytestmark = pytest.mark.usefixtures("fresh_servers")
PLAIN = {"compression": "none", "use_dictionary": False}


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)


class _Together:
    """Holds back requests until 25 of them wait at once, which `enough` then says."""

    def __init__(self) -> None:
        self.enough, self._waiting, self._lock = threading.Event(), 0, threading.Lock()

    def wait(self) -> None:
        with self._lock:
            self._waiting += 1
            if self._waiting > 24:
                self.enough.set()
        self.enough.wait(HANG)


@pytest.mark.parametrize("source", ["folder", "shards"])
def test_nothing_remote_is_read_before_its_first_use(tmp_path, memory, monkeypatch, source):
    """What a run does: a request for each header would take longer than the first epoch."""
    if source == "folder":
        tree(tmp_path / "x", {"": 24})
    else:
        write_shards(tmp_path / "x")
    memory.put(str(tmp_path / "x"), "/bucket/photos", recursive=True)
    lost: list = []
    options = {
        "image_size": 8,
        "max_unreadable_fraction": 0.3,
        "check": "headers",
        "on_lost": lambda path, reason: lost.append(path),
    }
    with monkeypatch.context() as patch:
        for name in ("read", "encoded", *(["shape"] if source == "folder" else [])):
            patch.setattr(
                f"pipelines.sources.folder.reader.PhotoReader.{name}",
                lambda self, path, **options: pytest.fail(path),
            )
        opened = open_source(source, root="memory://bucket/photos", **options)
    local = open_source(source, root=str(tmp_path / "x"), image_size=8)
    assert opened.pretrain.shape == (8, 8, 3)
    assert same(opened.pretrain, local.pretrain)
    assert (lost, opened.find_copies(), opened.leaked) == ([], (), None)


class TestFolders:
    def test_long_photos_are_read_as_far_as_needed(self, tmp_path, memory, monkeypatch):
        root = tree(tmp_path / "x", {"": 3})
        memory.put(str(root), "/bucket/photos", recursive=True)
        memory.pipe_file("/bucket/photos/_0.png", (root / "_0.png").read_bytes() + bytes(10**6))
        read: list[int] = []
        real = RemotePath.read

        def counting(self, *span):
            data = real(self, *span)
            read.append(len(data))
            return data

        monkeypatch.setattr(RemotePath, "read", counting)
        monkeypatch.setattr("pipelines.sources.folder.files.HEADER_BYTES", 1_000)
        far = open_source("folder", root="memory://bucket/photos")
        assert same(far.pretrain, open_source("folder", root=str(root)).pretrain)
        assert read and max(read) < 10**5

    def test_remote_folder_is_the_same_as_a_local_one(self, tmp_path, memory, monkeypatch):
        monkeypatch.chdir(tmp_path)
        root = tree(tmp_path / "x", {"train/cat": 3, "train/dog": 3, "test/cat": 1, "test/dog": 2})
        (root / "train/cat/broken.jpg").write_bytes(b"no")
        (root / ".hidden").mkdir()
        shutil.copy(root / "train/cat/train_cat_0.png", root / ".hidden")
        memory.put(str(root), "/bucket/photos", recursive=True)
        options = {"max_unreadable_fraction": 0.2}
        local = open_source("folder", root=str(root), **options)
        far = open_source("folder", root="memory://bucket/photos", **options)
        for split in ("pretrain", "train", "test"):
            assert same(getattr(local, split), getattr(far, split))
        assert local.train.labels.tolist() == far.train.labels.tolist()
        assert (local.skipped, local.fingerprint) == (far.skipped, far.fingerprint)
        assert os.listdir(tmp_path) == ["x"]  # no folder "memory:"

    def test_photo_that_goes_in_mid_run_is_replaced(self, tmp_path, memory):
        memory.put(str(tree(tmp_path / "x", {"": 9})), "/bucket/photos", recursive=True)
        lost = []
        source = open_source(
            "folder",
            root="memory://bucket/photos",
            cache="none",
            max_unreadable_fraction=0.2,
            on_lost=lambda *facts: lost.append(facts),
        )
        memory.rm("/bucket/photos/_3.png")
        assert np.array_equal(source.pretrain[3], source.pretrain[4])
        assert lost == [("_3.png", "there is no such file")]

    @pytest.mark.parametrize(
        ("root", "message"),
        [
            ("memory://none", "data.root: there is nothing at memory://none"),
            ("gs://bucket/x", "gs://bucket/x: a package is missing .*gcsfs"),
            ("what://bucket/x", "Protocol not known: what"),
            ("memory://x/list.csv", "expected a folder; a list is read from this disk alone"),
        ],
    )
    def test_what_cant_be_opened_is_an_error(self, root, message):
        with pytest.raises(SourceError, match=message):
            plan_source("folder", root=root)

    def test_url_in_a_config_stays_as_it_is(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for source, root in (
            ("folder", "s3://bucket/photos"),
            ("shards", "simplecache::http://host/{0..9}.tar"),
            ("huggingface", "someone/photos"),
        ):
            config = load_config("demo", [f"data.source={source}", f"data.root={root}"])
            assert absolute_paths(config).data.root == root

    def test_tfds_refuses_the_url_and_makes_no_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        message = r"source=shards reads .*, data.root=gs://bucket/tfds/stl10/<version>$"
        with pytest.raises(SourceError, match=message):
            plan_source("stl10", root="gs://bucket/tfds")
        assert os.listdir(tmp_path) == []

    def test_photos_without_labels_are_those_of_a_folder_of_shards(self, tmp_path, memory):
        write_shards(tmp_path / "x")
        memory.put(str(tmp_path / "x"), "/bucket/photos", recursive=True)
        flat = open_flat_images("memory://bucket/photos", "--images", lambda location: tmp_path)
        assert len(flat.photos) == 24
        for root, message in (
            ("memory://none", "--images: there is nothing at memory://none"),
            ("memory://bucket/empty", "--images: memory://bucket/empty holds no photos"),
        ):
            memory.pipe("/bucket/empty/x.txt", b"x")
            with pytest.raises(SourceError, match=message):
                open_flat_images(root, "--images", lambda location: tmp_path)


class TestShards:
    def test_shards_of_each_kind_of_url_are_those_of_the_disk(self, tmp_path, server, memory):
        local = open_source("shards", root=str(tmp_path / "www"))
        memory.put(str(tmp_path / "www"), "/bucket/photos", recursive=True)
        for root in (
            f"{server.url}/{PATTERN}",
            "memory://bucket/photos",
            "memory://bucket/photos/*.tar",
            f"memory://bucket/photos/{PATTERN}",
            f"simplecache::{server.url}/{PATTERN}",
        ):
            far = open_source("shards", root=root, cache="none")
            assert same(local.pretrain, far.pretrain), root
            assert far.fingerprint == local.fingerprint

    def test_empty_shard_is_indexed(self, tmp_path, memory):
        (tmp_path / "a.tfrecord").write_bytes(b"")
        with tf.io.TFRecordWriter(str(tmp_path / "b.tfrecord")) as writer:
            writer.write(jpeg(1))
            writer.write(jpeg(2))
        steps = []
        options = {"on_progress": lambda *step: steps.append(step)}
        source = open_source("shards", root=str(tmp_path / "*.tfrecord"), **options)
        assert len(source.pretrain) == 2
        assert steps[:2] == [("indexing shards", 0, 1), ("indexing shards", 2, 2)]

    def test_array_record_is_downloaded_once_and_an_outage_waited_for(self, tmp_path, monkeypatch):
        module = pytest.importorskip("array_record.python.array_record_module")
        (tmp_path / "www").mkdir()
        writer = module.ArrayRecordWriter(str(tmp_path / "www/x.array_record"), "group_size:1")
        for number in range(16):
            writer.write(jpeg(number))
        writer.close()
        local = open_source("shards", root=str(tmp_path / "www"))
        with serving(tmp_path / "www") as server:
            url = f"{server.url}/x.array_record"
            shard = _shard(url)
            server.requests.clear()
            server.refuse(5)
            with monkeypatch.context() as patch, ThreadPoolExecutor(8) as pool:
                patch.setattr(remote, "GIVE_UP_SECONDS", 60.0)  # the machine may be busy
                paths = set(pool.map(lambda _: shard.location.local_copy(), range(8)))
            assert len(paths) == 1
            server.fault = lambda path: None
            far = open_source("shards", root=url, cache="none")
            assert same(local.pretrain, far.pretrain)
            whole = [path for command, path, _ in server.requests if command == "GET"]
            server.fault = lambda path: 503
            with pytest.raises(SourceError, match=r"x.array_record\?again can't be read.*503"):
                RemotePath(f"{url}?again").local_copy()
        assert len(whole) == 5 + 1  # one thread asks again, the others wait for it

    def test_parquet_is_read_by_row_groups(self, tmp_path, server):
        rows = pa.table({"image": [jpeg(n) for n in range(200)]})
        pq.write_table(rows, tmp_path / "www" / "x.parquet", row_group_size=10)
        local = open_source("shards", root=str(tmp_path / "www" / "x.parquet"))
        far = open_source("shards", root=f"{server.url}/x.parquet", cache="none")
        assert same(local.pretrain, far.pretrain)

    def test_index_reads_headers_and_not_the_images(self, tmp_path, monkeypatch):
        image = jpeg(0, size=(900, 700))
        (tmp_path / "x.tar").write_bytes(tar({f"{n}.jpg": image for n in range(8)}))
        monkeypatch.setattr(remote, "_READAHEAD", 4_096)
        with serving(tmp_path) as server:
            shard_index.index_shard(_shard(f"{server.url}/x.tar"))
            ranges = [part for _, _, part in server.requests if part]
        sizes = [int(last) - int(first) + 1 for first, last in (p[6:].split("-") for p in ranges)]
        assert sum(sizes) < 8 * len(image) / 5

    def test_index_of_parquet_reads_names_and_labels_alone(self, tmp_path):
        image = jpeg(0, size=(900, 700))
        rows = {"image": [image] * 8, "path": [f"{n}.jpg" for n in range(8)], "label": [3] * 8}
        pq.write_table(pa.table(rows), tmp_path / "x.parquet", row_group_size=4, **PLAIN)
        with serving(tmp_path) as server:
            index = shard_index.index_shard(_shard(f"{server.url}/x.parquet"))
            ranges = [part for _, _, part in server.requests if part]
        sizes = [int(last) - int(first) + 1 for first, last in (p[6:].split("-") for p in ranges)]
        assert sum(sizes) < len(image)
        assert (index.names[5], index.labels[5], index.facts) == ("5.jpg", "3", ())
        assert index.spans[5].tolist() == [1, 1, -1]

    def test_image_that_is_no_jpeg_is_one_request(self, tmp_path):
        root = tree(tmp_path / "photos", {"": 2})
        members = {path.name: path.read_bytes() for path in root.iterdir()}
        (tmp_path / "x.tar").write_bytes(tar(members))
        with serving(tmp_path) as server:
            options = {"cache": "none", "check": "headers", "on_lost": print}
            source = open_source("shards", root=f"{server.url}/x.tar", **options)
            server.requests.clear()
            assert source.pretrain.encoded(0) is None
            assert source.pretrain[0].shape[2] == 3
            assert len(server.requests) == 1

    def test_image_is_one_request_of_its_own_bytes(self, server):
        source = open_source("shards", root=f"{server.url}/{PATTERN}", cache="none")
        server.requests.clear()
        source.pretrain[3]
        ((_, path, part),) = server.requests
        first, last = map(int, part[6:].split("-"))
        data = (server.root / path.lstrip("/")).read_bytes()[first : last + 1]
        assert data in {jpeg(number) for number in range(24)}

    @pytest.mark.parametrize("image_size", [None, 8])
    def test_order_of_a_run_begun_on_disk_stays_and_requests_are_made_at_once(
        self, tmp_path, image_size, monkeypatch
    ):
        monkeypatch.setattr(remote, "GIVE_UP_SECONDS", 60.0)  # the machine may be busy
        (tmp_path / "x.tar").write_bytes(
            tar({f"{n}.jpg": jpeg(n, size=(12 + n % 2, 10)) for n in range(48)})
        )
        local, manifest = _batch(str(tmp_path / "x.tar"), image_size)
        monkeypatch.setattr(batches, "_PREFETCH", 1)  # what is read ahead takes time alone
        with serving(tmp_path) as server:
            source = f"{server.url}/x.tar"
            plan_source("shards", root=source)
            together, opening = _Together(), len(server.requests) + 1  # which is asked for alone
            server.fault = lambda path: together.wait() if len(server.requests) > opening else None
            far, _ = _batch(source, image_size, manifest)
        assert all(map(np.array_equal, local, far))
        assert together.enough.is_set()

    def test_simplecache_downloads_each_shard_once(self, server):
        source = open_source(
            "shards",
            root=f"simplecache::{server.url}/{PATTERN}",
            cache="none",
            check="headers",
            on_lost=print,
        )
        server.requests.clear()  # indexing has downloaded them
        for index in range(24):
            source.pretrain[index]
        assert server.requests == []

    def test_server_without_ranges_is_an_error(self, server):
        server.ranges = False
        with pytest.raises(
            SourceError, match=r"photos-000.tar: the server sends whole files.*simplecache::"
        ):
            open_source("shards", root=f"{server.url}/{PATTERN}")


def _batch(root: str, image_size: int | None, manifest=None) -> tuple[list[np.ndarray], object]:
    """The first batch of crops, or of images of one size, and the manifest."""
    source = open_source(
        "shards",
        root=root,
        image_size=image_size,
        cache="none",
        check="headers",
        on_lost=print,
        manifest=manifest,
    )
    if image_size:
        batches = image_batches(source.pretrain, 32, seed=0)
    else:
        batches = crop_batches(source.pretrain, preset("byol"), 8, 32, seed=0)
    return [part.numpy() for part in next(iter(batches))], source.manifest


def _shard(url: str):
    return find_shards(url)[0]


class _Buffered(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        self.fs.ranges.append((start, end))
        return bytes(end - start)


class _Synchronous(AbstractFileSystem):
    """Reads ahead, as those of Hugging Face's hub and of SFTP servers do."""

    protocol, cachable = "synchronous", False

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.ranges: list[tuple[int, int]] = []

    def info(self, path, **options):
        return {"name": path, "size": 2**24, "type": "file"}

    def _open(self, path, mode="rb", **options):
        return _Buffered(self, path, mode, **options)


class _Far(MemoryFileSystem):
    """Files in memory that a server far away gives: slowly, and without sizes in its listings."""

    protocol, cachable = "far", False
    store, pseudo_dirs = {}, [""]
    together = _Together()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("far://", "memory://"))

    def cat_file(self, path, start=None, end=None, **options):
        return self._slowly(super().cat_file, path, start, end)

    def info(self, path, **options):
        return self._slowly(super().info, path)

    def find(self, path, **options):
        root = self._strip_protocol(path)
        names = [name for name in self.store if name.startswith(root)]
        return {name: {"name": name, "size": None, "type": "file"} for name in names}

    def _slowly(self, call, *args):
        _Far.together.wait()
        return call(*args)


class _Listing(AsyncFileSystem):
    """Takes its time to list, page by page."""

    protocol, cachable = "listing", False

    async def _find(self, path, **options):
        await asyncio.sleep(0.5)
        return {f"{path}/a.jpg": {"name": f"{path}/a.jpg", "size": 3, "type": "file"}}

    async def _glob(self, path, **options):
        return await self._find(path)

    async def _cat_file(self, path, **options):
        await asyncio.sleep(0.5)


@pytest.fixture
def file_systems():
    for kind in (_Synchronous, _Listing, _Far):
        fsspec.register_implementation(kind.protocol, kind, clobber=True)
    _Far.store.clear()


class TestRequestsAtOnce:
    """Waits for a server, 48 files of `_Far`, don't depend on the number of cores."""

    @pytest.fixture(autouse=True)
    def _files(self, file_systems):
        for number in range(48):
            far = _Far()
            far.pipe_file(f"/photos/{number:02}.jpg", jpeg(number))
            far.pipe_file(f"/shards/{number:02}.tar", tar({"a.jpg": jpeg(number)}))

    def were_at_once(self) -> bool:
        """Whether 25 requests have waited at once since the last question."""
        before, _Far.together = _Far.together, _Together()
        return before.enough.is_set()

    def test_sizes_and_photos_of_a_folder(self, tmp_path):
        flat = open_flat_images("far://photos", "--images", lambda location: tmp_path)
        assert self.were_at_once()
        read = [pixels for _, pixels, _ in flat.read_each(flat.photos)]
        assert self.were_at_once()
        assert len(read) == 48
        source = open_source("folder", root="far://photos")
        assert self.were_at_once()
        assert same(source.pretrain, read)

    @pytest.mark.parametrize("root", ["far://shards", "far://shards/{00..47}.tar"])
    def test_sizes_and_indices_of_shards(self, root):
        shards = find_shards(root)
        assert self.were_at_once()
        assert len(IndexCache(root, None).index(shards, lambda *step: None)) == 48
        assert self.were_at_once()


def test_what_isnt_begun_when_a_reader_stops_is_dropped():
    release, begun = threading.Event(), []

    def wait(number: int) -> int:
        begun.append(number)
        if number:
            release.wait(HANG)
        return number

    results = map_in_order(wait, range(100), workers=4)
    assert next(results) == 0
    results.close()  # as Ctrl-C does; it waits for no call, or it would wait for the release
    release.set()
    assert len(begun) <= 5


def test_part_of_a_file_is_requested_alone(file_systems):
    path = RemotePath("synchronous://host/x.tar")
    assert path.read(100, 300) == bytes(200)
    assert path.fs.ranges == [(100, 300)]


def test_listing_may_take_longer_than_a_request(file_systems, monkeypatch):
    monkeypatch.setattr(remote, "READ_SECONDS", 0.1)
    path = RemotePath("listing://bucket")
    assert len(path.find()) == len(path.glob("*.jpg")) == 1
    with pytest.raises(SourceError, match="no answer within 0"):
        path.read(0, 1)


def test_stamp_changes_with_a_file_of_the_hub():
    assert remote.stamp({"name": "x", "size": 3, "xet_hash": "a", "blob_id": "b"}) == "a"
    assert remote.stamp({"name": "x", "size": 3, "xet_hash": None, "blob_id": "b"}) == "b"


class _Failure(Exception):
    def __init__(self, **facts) -> None:
        super().__init__("failed")
        self.__dict__.update(facts)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (_Failure(code=401), False),  # gcsfs
        (_Failure(code="403"), False),
        (_Failure(code=503), True),
        (OSError("Forbidden: bucket/x\nno access to it"), False),
        (OSError("broken pipe"), True),
        (_Failure(status_code=403), False),  # Azure
        (_Failure(status_code=429), True),
        (_Failure(response=SimpleNamespace(status_code=401)), False),  # Hugging Face's hub
        (_Failure(code=None, response=None), True),
    ],
)
def test_refusal_is_told_from_an_outage(error, passes):
    assert remote._may_pass(error) is passes


def test_path_below_another_has_its_url(memory):
    root = RemotePath("memory://bucket/photos/")
    assert str(root / "a b.jpg") == "memory://bucket/photos/a b.jpg"
    assert (root / "a b.jpg").path == "/bucket/photos/a b.jpg"
