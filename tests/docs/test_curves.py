"""The table of `docs/curves.md` has every scalar with TensorBoard's tag and text; what to look for
is written there by hand.

`python -m tests.docs.test_curves` writes the other columns anew.
"""

import re

from byol_tf.train.callbacks.history import COLUMNS, SCALARS
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "curves.md"
TABLE = re.compile(r"(?<=<!-- scalars -->\n).*(?=<!-- /scalars -->)", re.DOTALL)


def scalars(page: str) -> str:
    """The table as it should be: in the page's order, with what the page says to look for."""
    (found,) = TABLE.findall(page)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.splitlines()[2:]]
    look = {column.strip("`"): text for column, _, text, _ in rows}
    lines = [
        "| column of `history.csv` | in TensorBoard | what to look for | what it is |",
        "|---|---|---|---|",
    ]
    for column in (
        *(name for name in look if name in SCALARS),
        *(name for name in SCALARS if name not in look),
    ):
        tag, text = SCALARS[column]
        lines.append(f"| `{column}` | `{tag}` | {look.get(column, '')} | {text} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_scalars_is_fresh():
    page = PAGE.read_text(encoding="utf-8")
    (found,) = TABLE.findall(page)
    assert found == scalars(page), "stale: python -m tests.docs.test_curves writes it anew"
    assert "|  |" not in found, "say in the page what to look for"


def test_each_column_of_the_history_is_a_scalar():
    assert set(SCALARS) == set(COLUMNS) - {"epoch"}


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda _: scalars(text), text), encoding="utf-8")
