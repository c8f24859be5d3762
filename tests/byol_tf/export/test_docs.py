"""docs/exporting.md: its table of tolerances is the code's. (tests/docs runs its commands and its
Python.)"""

import re
from pathlib import Path

from byol_tf.export.formats import FORMS

DOCS = Path(__file__).parents[3] / "docs" / "exporting.md"


def test_the_tolerances_are_those_of_the_forms():
    rows = re.findall(
        r"^\| [^|]+ \| ([\d.]+) \| ([\d.]+) \| (\d+)% \|$",
        DOCS.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    documented = {
        (float(difference), float(cosine), int(same) / 100) for difference, cosine, same in rows
    }
    assert documented == {(form.difference, form.cosine, form.same_neighbour) for form in FORMS}
