"""Markdown tables as they are compared in tests."""

import re


def unpadded(text: str) -> str:
    """Returns a text without the spaces and dashes that align the columns of its tables."""
    return re.sub("-{2,}[|]", "---|", re.sub(" +[|]", " |", text))
