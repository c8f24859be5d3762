"""docs/exporting.md: its table of tolerances is the code's; tests/docs runs its commands."""

import re
from pathlib import Path

from byol_tf.export.formats import FORMATS, Tolerance

DOCS = Path(__file__).parents[3] / "docs" / "exporting.md"


def test_documented_tolerances_are_those_of_the_code():
    rows = re.findall(
        r"^\| [^|]+ \| ([\d.]+) \| ([\d.]+) \| (\d+)% \|$",
        DOCS.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    documented = {
        Tolerance(float(difference), float(cosine), int(same) / 100)
        for difference, cosine, same in rows
    }
    assert documented == {export_format.tolerance for export_format in FORMATS}
