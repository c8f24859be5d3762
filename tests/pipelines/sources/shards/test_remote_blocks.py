"""Shards behind URLs that are read block by block, and the requests for each."""

import time
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import batches
from pipelines.batches import image_batches
from pipelines.sources import open_flat_images, open_source, remote
from pipelines.sources.shards import fetching
from tests.helpers.shard_files import jpeg, same, serving, tar

pytestmark = pytest.mark.usefixtures("fresh_servers")


def _read(source, steps: range, worker: int = 0, workers: int = 1) -> list[np.ndarray]:
    batches = image_batches(source.pretrain, 8, 0, steps[0], worker, workers)
    return [batch.numpy() for batch, _ in batches.take(len(steps))]


class TestBlocks:
    """240 images in three shards, sorted; a block has about four of them."""

    @pytest.fixture(autouse=True)
    def _small_blocks(self, monkeypatch):
        monkeypatch.setattr(fetching, "BLOCK_BYTES", 8_000)
        monkeypatch.setattr(fetching, "_MAX_GAP", 2_000)

    @pytest.fixture(params=["tar", "parquet"])
    def www(self, tmp_path, request):
        (tmp_path / "www").mkdir()
        for shard in range(3):
            images = {f"{n:03}.jpg": jpeg(n) for n in range(shard * 80, shard * 80 + 80)}
            file = tmp_path / "www" / f"photos-{shard:03}.{request.param}"
            if request.param == "tar":
                file.write_bytes(tar(images))
            else:
                rows = pa.table({"image": list(images.values()), "path": list(images)})
                pq.write_table(rows, file, row_group_size=4, compression="none")
        return tmp_path / "www"

    def open(self, server, lost: list | None = None, **options):
        (suffix,) = {path.suffix for path in server.root.iterdir()}
        return open_source(
            "shards",
            root=f"{server.url}/photos-{{000..002}}{suffix}",
            check="headers",
            cache="none",
            image_size=8,
            max_unreadable_fraction=0.4,
            on_lost=lambda *facts: (lost if lost is not None else []).append(facts),
            **options,
        )

    def test_block_is_one_request_and_each_image_comes_once(self, www, tmp_path):
        local = open_source("shards", root=str(www), image_size=8)
        pixels = {image.tobytes() for image in local.pretrain}
        with serving(www) as server:
            source = self.open(server)
            blocks = len(np.unique(source.pretrain.blocks.ids))
            server.requests.clear()
            read = np.concatenate(_read(source, range(90)))
            time.sleep(0.3)  # for what is fetched ahead
            ranges = [part for _, _, part in server.requests if part]
        assert sorted(image.tobytes() for image in read) == sorted(3 * list(pixels))
        # Those between two of eight lanes are read twice; a fourth epoch's are fetched ahead.
        assert blocks > 40
        assert 3 * blocks <= len(ranges) <= 4 * (blocks + 8) + 6

    @pytest.mark.parametrize(("ahead", "most"), [(2, 5), (0, 0)])
    def test_large_steps_are_fetched_once(self, www, monkeypatch, ahead, most):
        """Blocks of one image each, of which a step has 60: eight steps would be too much."""
        monkeypatch.setattr(fetching, "BLOCK_BYTES", 1)
        with serving(www) as server:
            source = self.open(server)
            blocks = source.pretrain.blocks
            if blocks.max_open < 64 or len(np.unique(blocks.ids)) < 240:
                pytest.skip("row groups have several images")
            step = 60 * blocks.image_bytes
            monkeypatch.setattr(fetching, "_MAX_BYTES", most * step)
            monkeypatch.setattr(batches, "_BYTES_AHEAD", ahead * step)
            server.requests.clear()
            for _ in image_batches(source.pretrain, 60, seed=0).take(12):
                time.sleep(0.05)
            ranges = [(path, part) for _, path, part in server.requests if part]
        assert max(Counter(ranges).values()) <= 4  # 12 steps are three epochs

    def test_resumed_run_and_two_workers_read_the_same(self, www):
        with serving(www) as server:
            begun = self.open(server)
            whole = _read(begun, range(40))
            again = _read(self.open(server), range(33, 40))
            parts = [_read(self.open(server), range(20, 40), worker, 2) for worker in (0, 1)]
        assert same(whole[33:], again)
        assert same(whole[20:], [np.concatenate(pair) for pair in zip(*parts, strict=True)])
        near = open_source("shards", root=str(www), manifest=begun.manifest, image_size=8)
        assert same(whole, _read(near, range(40)))  # shards that were downloaded since

    def test_sample_of_the_images_is_read_without_the_others(self, www):
        with serving(www) as server:
            source = self.open(server, pretrain_images=24)
            server.requests.clear()
            read = np.concatenate(_read(source, range(3)))
            ranges = [part for _, _, part in server.requests if part]
        assert len({image.tobytes() for image in read}) == 24
        assert len(ranges) <= 3 * 48  # of three epochs: the rest is fetched ahead

    def test_photos_in_their_order_are_requested_together(self, www, tmp_path):
        with serving(www) as server:
            (suffix,) = {path.suffix for path in www.iterdir()}
            root = f"{server.url}/photos-{{000..002}}{suffix}"
            flat = open_flat_images(root, "--images", lambda location: tmp_path)
            server.requests.clear()
            read = [pixels for _, pixels, _ in flat.read_each(flat.photos)]
            ranges = [part for _, _, part in server.requests if part]
        local = open_source("shards", root=str(www))
        assert same(read, local.pretrain)
        assert len(ranges) < 90

    def test_outage_is_waited_for_and_a_shard_that_goes_is_replaced(self, www, monkeypatch):
        monkeypatch.setattr(remote, "GIVE_UP_SECONDS", 60.0)  # the machine may be busy
        lost: list = []
        with serving(www) as server:
            whole = _read(self.open(server), range(30))
            source = self.open(server, lost)
            server.refuse(10)
            assert same(whole, _read(source, range(30)))
            assert lost == []
            shard = sorted(www.iterdir())[1]
            shard.unlink()
            _read(source, range(30, 60))
        assert {path.partition("/")[0] for path, _ in lost} == {shard.name}
        assert {reason for _, reason in lost} == {"its shard is gone"}
        assert source.failure() is None
