"""What is wrong with a file that was to be converted."""

from collections.abc import Sequence

_SHOWN = 8
"""Names in a message; a network has hundreds, and when one is wrong, often all are."""


class ConversionError(Exception):
    """A file can't be converted; the text names the file or its tensors and says what was expected."""


def named(names: Sequence[str]) -> str:
    """`a, b, c and 40 more`."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
