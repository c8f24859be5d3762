"""Shards on servers that are slow, busy, silent or gone, and an S3 server."""

import time

import fsspec
import pytest

from pipelines.sources import SourceError, open_source, plan_source, remote
from pipelines.sources.remote import RemotePath
from tests.helpers.shard_files import PATTERN, same, write_shards
from tests.pipelines.sources.folder.test_source import tree

pytestmark = pytest.mark.usefixtures("fresh_servers")


class TestFaults:
    def open(self, server, lost: list | None = None):
        return open_source(
            "shards",
            root=f"{server.url}/{PATTERN}",
            cache="none",
            max_unreadable_fraction=0.4,
            on_lost=None if lost is None else lambda *facts: lost.append(facts),
        )

    def test_busy_server_is_waited_for_and_nothing_is_lost(
        self, tmp_path, server, caplog, monkeypatch
    ):
        monkeypatch.setattr(remote, "GIVE_UP_SECONDS", 60.0)  # the machine may be busy
        local, lost = open_source("shards", root=str(tmp_path / "www")), []
        server.refuse(10)
        far = self.open(server, lost)
        assert "503, message='Service Unavailable'" in caplog.text
        caplog.clear()
        server.refuse(5)
        assert same(local.pretrain, far.pretrain)
        assert lost == []
        assert caplog.text.count("503, message='Service Unavailable'") == 1  # for all five
        assert caplog.text.count("trying again for 60 s") == 1

    def test_server_that_stays_busy_ends_the_run_with_the_shard_and_the_reason(self, server):
        lost: list = []
        source = self.open(server, lost)
        server.fault = lambda path: 503
        with pytest.raises(SourceError, match=r"photos-000.tar can't be read.*: 503"):
            source.pretrain[0]
        server.requests.clear()
        for index in range(24):
            with pytest.raises(SourceError, match="503"):
                source.pretrain[index]
        assert server.requests == []  # others don't wait again
        assert "photos-000.tar" in str(source.failure())
        assert lost == []  # the images are there: a resumed run reads them

    def test_silent_server_is_given_up(self, server, monkeypatch):
        source = self.open(server, [])
        monkeypatch.setattr(remote, "READ_SECONDS", 0.3)
        server.fault = lambda path: time.sleep(5)
        with pytest.raises(SourceError, match=r"photos-000.tar can't be read.*no answer within 0"):
            source.pretrain[0]

    def test_slow_answer_is_awaited(self, server):
        source = self.open(server, [])
        server.fault = lambda path: time.sleep(0.3)
        source.pretrain[0]

    def test_shard_gone_in_mid_run_is_replaced(self, tmp_path, server):
        lost: list = []
        source = self.open(server, lost)
        (tmp_path / "www" / "photos-001.tar").unlink()
        for index in range(24):
            source.pretrain[index]
        assert {path.partition("/")[0] for path, _ in lost} == {"photos-001.tar"}
        assert {reason for _, reason in lost} == {"its shard is gone"}
        assert source.failure() is None

    def test_shard_truncated_in_mid_run_is_replaced(self, tmp_path, server):
        lost: list = []
        source = self.open(server, lost)
        with (tmp_path / "www" / "photos-001.tar").open("r+b") as file:
            file.truncate(9_000)
        for index in range(24):
            source.pretrain[index]
        assert {reason for _, reason in lost} == {"its shard is truncated"}

    @pytest.mark.parametrize("status", [401, 403])
    def test_refusal_is_an_error_at_once(self, server, status):
        source = self.open(server)
        server.requests.clear()
        server.fault = lambda path: status
        with pytest.raises(SourceError, match=f"photos-000.tar can't be read: {status}"):
            source.pretrain[0]
        assert len(server.requests) == 1

    def test_missing_shard_is_named(self, server):
        with pytest.raises(SourceError, match=r"there is no http://.*/photos-003.tar"):
            plan_source("shards", root=f"{server.url}/photos-{{000..003}}.tar")

    def test_server_that_isnt_there(self):
        with pytest.raises(SourceError, match=r"127.0.0.1:9/x.tar"):
            plan_source("shards", root="http://127.0.0.1:9/x.tar")


@pytest.mark.long
class TestS3:
    """An S3 server of moto in this process."""

    @pytest.fixture
    def bucket(self, monkeypatch):
        s3fs = pytest.importorskip("s3fs")
        s3fs.S3FileSystem.clear_instance_cache()  # those of another test's server
        server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
        server.start()
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdirs("bucket", exist_ok=True)
        yield files
        server.stop()

    def test_folder_and_shards_of_a_bucket(self, tmp_path, bucket):
        write_shards(tmp_path / "shards")
        root = tree(tmp_path / "photos", {"cat": 3, "dog": 3})
        bucket.put(str(tmp_path / "shards"), "bucket/shards", recursive=True)
        bucket.put(str(root), "bucket/photos", recursive=True)
        local = open_source("shards", root=str(tmp_path / "shards"))
        for name in ("shards", "shards/*.tar", f"shards/{PATTERN}"):
            assert same(local.pretrain, open_source("shards", root=f"s3://bucket/{name}").pretrain)
        far = open_source("folder", root="s3://bucket/photos")
        assert same(open_source("folder", root=str(root)).pretrain, far.pretrain)
        with pytest.raises(SourceError, match="there is nothing at s3://bucket/none"):
            plan_source("shards", root="s3://bucket/none")

    def test_part_beyond_the_end_of_an_object_is_empty(self, bucket):
        bucket.pipe("bucket/x.tar", b"abc")
        path = RemotePath("s3://bucket/x.tar")
        assert (path.read(1, 9), path.read(5, 9)) == (b"bc", b"")

    def test_missing_credentials_are_named_at_once(self, bucket, monkeypatch):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        fsspec.filesystem("s3").clear_instance_cache()
        with pytest.raises(SourceError, match=r"s3://bucket/shards.*[Cc]redentials"):
            plan_source("shards", root="s3://bucket/shards")
