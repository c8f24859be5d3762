"""The list of a run's photos, which a resumed run is given so that it uses the same ones."""

import gzip
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from pipelines.memory import free_memory
from pipelines.sources.images import Shape

_MAX_BYTES = 2**30
"""Largest text that is read: millions of photos. A small file could unpack to any size."""
_BYTES_PER_CHARACTER = 32
"""Memory for which a parsed text is reckoned: its shortest objects, as `{}`, take about 24."""


@dataclass(frozen=True)
class PhotoManifest:
    """Photos of a folder or a list when a run began.

    Attributes:
        sizes: bytes of each photo, by its path below the root with "/", ascending.
        class_of: the class of each path for which a list names one.
        skipped: (printable path, reason) of each photo that couldn't be read.
        shapes: for each split in use, the common shape of its images, or None where they differ.
        by_blocks: whether the order of training is that of images read in blocks, see `Images`.
    """

    sizes: Mapping[str, int]
    class_of: Mapping[str, str]
    skipped: tuple[tuple[str, str], ...] = ()
    shapes: Mapping[str, Shape | None] = field(default_factory=dict)
    by_blocks: bool = False

    def to_bytes(self) -> bytes:
        """Returns a file's content; the same photos give the same bytes."""
        return gzip.compress(json.dumps(asdict(self)).encode(), compresslevel=6, mtime=0)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Reads what `to_bytes` returned.

        Raises:
            ValueError: it is something else.
        """
        try:
            limit = min(_MAX_BYTES, free_memory() // _BYTES_PER_CHARACTER)
            with gzip.open(io.BytesIO(content)) as file:
                text = file.read(limit + 1)
            if len(text) > limit:
                raise ValueError(
                    f"it unpacks to more than {limit:,} bytes, the most for the memory that is free"
                )
            fields = json.loads(text)
            shapes = {
                split: None if shape is None else tuple(shape)
                for split, shape in fields["shapes"].items()
            }
            skipped = tuple((path, reason) for path, reason in fields["skipped"])
            return cls(
                fields["sizes"], fields["class_of"], skipped, shapes, bool(fields["by_blocks"])
            )
        except (
            OSError,
            EOFError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
        ) as error:
            raise ValueError(f"expected the list of photos that a run wrote; {error}") from error
