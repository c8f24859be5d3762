"""The Parquet table, as DuckDB reads it."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from byol_tf.embed import parquet
from byol_tf.embed.store import Store
from pipelines.sources import Photos

COUNT, WIDTH = 50, 8


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "out", "digest", tmp_path)


@pytest.fixture
def photos(store) -> Photos:
    """Photos whose rows, in the store, are 0, 1, 2, ..."""
    names = [f"caf\N{LATIN SMALL LETTER E WITH ACUTE}/{row:02}.jpg" for row in range(COUNT)]
    photos = Photos(names, np.arange(COUNT), np.arange(COUNT) + 1_700_000_000_000_000_000)
    rows = np.arange(COUNT * WIDTH, dtype=np.float32).reshape(COUNT, WIDTH)
    store.write_part(list(photos), rows)
    store.write(photos, {}, {})
    return photos


def test_duckdb_reads_paths_and_embeddings_of_all_row_groups(store, photos, monkeypatch):
    import duckdb

    monkeypatch.setattr(parquet, "_GROUP_BYTES", 16 * WIDTH * 4)
    parquet.write_parquet(store, photos)
    assert pq.ParquetFile(store.parquet).num_row_groups == 4
    table = duckdb.read_parquet(str(store.parquet))
    assert table.columns == ["path", "bytes", "modified", "embedding"]
    rows = table.order("path").fetchall()
    assert [row[:3] for row in rows] == [
        (photo.name, photo.bytes, photo.modified) for photo in photos
    ]
    np.testing.assert_array_equal(np.array([row[3] for row in rows]), store.load())
    nearest = duckdb.sql(
        f"SELECT path FROM '{store.parquet}' "
        f"ORDER BY list_distance(embedding, (SELECT embedding FROM '{store.parquet}' WHERE "
        "bytes = 7)) LIMIT 2"
    ).fetchall()
    assert nearest[0][0] == photos[7].name


def test_embeddings_have_their_length_in_the_type(store, photos):
    parquet.write_parquet(store, photos)
    field = pq.read_schema(store.parquet).field("embedding")
    assert str(field.type) == f"fixed_size_list<element: float>[{WIDTH}]"


def test_new_embeddings_remove_the_table(store, photos):
    parquet.write_parquet(store, photos)
    store.write(photos[:10], {}, {})
    assert not Path(store.parquet).exists()
