"""Embeddings of photos by Ray Data and an exported encoder, on one machine or on a cluster.

    python examples/embed_ray.py runs/demo/export/encoder/1 photos embeddings

Paths may be of an object store, such as s3://bucket/photos. It writes Parquet files with the
columns path and embedding.
"""

import sys

import pyarrow as pa
import ray
import tensorflow as tf

SCHEMA = pa.schema({"path": pa.string(), "embedding": pa.list_(pa.float32())})


class Embedder:
    """A worker, which loads the encoder once."""

    def __init__(self, encoder: str) -> None:
        self.encoder = tf.saved_model.load(encoder)

    def __call__(self, files: pa.Table) -> pa.Table:
        """Embeds the files of a batch. One that can't be decoded is skipped."""
        return self.embed(files)  # Ray runs __call__ in a thread, which would wait for itself

    def embed(self, files: pa.Table) -> pa.Table:
        """Embeds some files, in halves where one of them can't be decoded."""
        try:
            embeddings = self.encoder.serve_bytes(files["bytes"].to_pylist()).numpy()
        except tf.errors.InvalidArgumentError:
            if len(files) == 1:
                print(f"skipped: {files['path'][0]} can't be decoded")
                return SCHEMA.empty_table()
            half = len(files) // 2
            return pa.concat_tables([self.embed(files[:half]), self.embed(files[half:])])
        return pa.table({"path": files["path"], "embedding": list(embeddings)}, SCHEMA)


if __name__ == "__main__":
    encoder, photos, out = sys.argv[1:]
    files = ray.data.read_binary_files(
        photos, include_paths=True, file_extensions=["jpg", "jpeg", "png", "bmp", "gif"]
    )
    files.map_batches(
        Embedder,
        fn_constructor_args=[encoder],
        batch_format="pyarrow",
        batch_size=128,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=64),
    ).write_parquet(out)
