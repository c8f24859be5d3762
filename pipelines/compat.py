"""Private names of TensorFlow Datasets that this package depends on; no other module imports any.

Each entry says why there is no public way. Versions: tensorflow-datasets 4.9.9 and later, as
`setup.cfg` requires.
"""

# `import tensorflow_datasets` succeeds whatever fails inside, and leaves an empty package: protobuf
# has errors of its own for messages that are newer than itself. These imports show it.
try:
    # What TFDS raises for a file with a wrong checksum. `tfds.download` doesn't export it.
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    # The name under which TFDS stores a download, and whether the file is complete: needed to tell,
    # without a network, that nothing has to be downloaded. `tfds.download.DownloadManager` would
    # start the download instead.
    from tensorflow_datasets.core.download.resource import get_dl_fname, is_locally_cached
except Exception as error:
    raise ImportError(
        f"tensorflow-datasets can't be imported here: {error}. With TensorFlow 2.19: pip install "
        "'tensorflow-metadata<1.18'"
    ) from error

__all__ = ["NonMatchingChecksumError", "get_dl_fname", "is_locally_cached"]
