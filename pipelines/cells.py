"""Cells of tables that a spreadsheet may open."""

import re

_FORMULA = re.compile(r"'*[=+@-](?![\d.]*(e[+-]?\d+)?$)")  # a number is none


def text_cell(text: str) -> str:
    """Returns text as a table has it: an apostrophe stands before what would be a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def text_of_cell(cell: str) -> str:
    """Returns the text that `text_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
