"""The photos of a folder as they were when a run began, so that it goes on with those whatever became of the folder since."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pipelines.sources.images import Shape


@dataclass(frozen=True)
class Roll:
    """What was found by name, and what came of reading it.

    Attributes:
        sizes: bytes of each photo, by its path below the root with "/", ascending.
        class_of: the class of each path that a list named one for.
        skipped: (path as it is printed, reason) of what couldn't be read.
        shapes: of each split that was used, the common shape of its images, or None where they differ.
    """

    sizes: Mapping[str, int]
    class_of: Mapping[str, str]
    skipped: tuple[tuple[str, str], ...] = ()
    shapes: Mapping[str, Shape | None] | None = None

    def packed(self) -> bytes:
        """As a file's content. The same photos give the same bytes."""
        return gzip.compress(json.dumps(asdict(self)).encode(), compresslevel=6, mtime=0)


def unpacked(content: bytes) -> Roll:
    """What `packed` gave. Raises ValueError where it is something else."""
    try:
        fields = json.loads(gzip.decompress(content))
        shapes = {split: None if shape is None else tuple(shape) for split, shape in fields["shapes"].items()}
        return Roll(fields["sizes"], fields["class_of"], tuple((path, reason) for path, reason in fields["skipped"]), shapes)
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"expected the list of photos that a run wrote; {error}") from error
