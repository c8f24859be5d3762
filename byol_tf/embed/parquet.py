"""Embeddings as a Parquet table, for DuckDB, FiftyOne, Embedding Atlas and the like."""

from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from byol_tf.embed.store import Store
from byol_tf.runs.files import atomic_file
from pipelines.sources import Photos

_GROUP_BYTES = 2**25
"""Bytes of embeddings in a row group, which is in memory while it is written."""


def write_parquet(store: Store, photos: Photos) -> None:
    """Writes `embeddings.parquet` from the stored embeddings, unless it is there.

    Its columns are `path`, `bytes` and `modified` as in `index.csv`, and `embedding`, d numbers of
    float32.

    Args:
        store: after `write`, which removes the file when the embeddings change.
        photos: of its rows.

    Raises:
        EmbedError: if the disk refuses.
    """
    if not store.parquet.exists():
        with store.writing(), atomic_file(store.parquet) as file:
            _write(file, photos, store.load())


def _write(file: BinaryIO, photos: Photos, embeddings: np.ndarray) -> None:
    width = embeddings.shape[1]
    columns = {
        "path": pa.string(),
        "bytes": pa.int64(),
        "modified": pa.int64(),
        "embedding": pa.list_(pa.float32(), width),
    }
    schema = pa.schema(columns)
    group = max(1, _GROUP_BYTES // embeddings[0].nbytes)
    # No value recurs, so that a dictionary of them would only take memory.
    with pq.ParquetWriter(file, schema, use_dictionary=False) as writer:
        for start in range(0, len(photos), group):
            rows = photos[start : start + group]
            numbers = pa.array(np.asarray(embeddings[start : start + group]).reshape(-1))
            arrays = [
                pa.array([photo.name for photo in rows], columns["path"]),
                pa.array([photo.bytes for photo in rows], columns["bytes"]),
                pa.array([photo.modified for photo in rows], columns["modified"]),
                pa.FixedSizeListArray.from_arrays(numbers, width),
            ]
            writer.write_table(pa.table(arrays, schema))
