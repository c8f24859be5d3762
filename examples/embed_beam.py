"""Embeddings of photos by Apache Beam and an exported encoder, on any of Beam's runners.

    python examples/embed_beam.py runs/demo/export/encoder/1 'photos/**.jpg' embeddings

Further arguments are Beam's, such as --runner=DataflowRunner, and paths may be of an object store.
It writes Parquet files with the columns path and embedding.
"""

import sys
from collections.abc import Iterator

import apache_beam as beam
import pyarrow as pa
from apache_beam.io import fileio, parquetio

SCHEMA = pa.schema({"path": pa.string(), "embedding": pa.list_(pa.float32())})


class Embed(beam.DoFn):
    """Embeds batches of (path, content); a worker loads the encoder once."""

    def __init__(self, encoder: str) -> None:
        self.folder = encoder

    def setup(self) -> None:
        """Loads the encoder."""
        import tensorflow as tf

        self.encoder, self.invalid = (
            tf.saved_model.load(self.folder),
            tf.errors.InvalidArgumentError,
        )

    def process(self, files: list[tuple[str, bytes]]) -> Iterator[dict]:
        """Embeds a batch, in halves where one can't be decoded; that one is skipped."""
        try:
            embeddings = self.encoder.serve_bytes([content for _, content in files]).numpy()
        except self.invalid:
            if len(files) == 1:
                print(f"skipped: {files[0][0]} can't be decoded")
            else:
                half = len(files) // 2
                yield from self.process(files[:half])
                yield from self.process(files[half:])
            return
        for (path, _), embedding in zip(files, embeddings, strict=True):
            yield {"path": path, "embedding": embedding.tolist()}


if __name__ == "__main__":
    encoder, photos, out, *options = sys.argv[1:]
    with beam.Pipeline(argv=options) as pipeline:
        (
            pipeline
            | fileio.MatchFiles(photos)
            | fileio.ReadMatches()
            | beam.Map(lambda file: (file.metadata.path, file.read()))
            | beam.BatchElements(max_batch_size=128)
            | beam.ParDo(Embed(encoder))
            | parquetio.WriteToParquet(out, SCHEMA, file_name_suffix=".parquet")
        )
