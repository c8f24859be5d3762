"""The images of a shard, as an index lists them."""

from typing import NamedTuple


class Record(NamedTuple):
    """An image in a shard.

    Attributes:
        name: its path in the shard, or its number where it has none.
        label: its class, or None.
        row: which record of the shard it is in, or which row group; 0 where that doesn't matter.
        offset: where its bytes begin: in the shard or record; in a row group, its row.
        length: its bytes; -1 where they aren't known.
    """

    name: str
    label: str | None
    row: int
    offset: int
    length: int


class BrokenShard(Exception):
    """A shard that can't be read as its name says; the text is a short reason."""
