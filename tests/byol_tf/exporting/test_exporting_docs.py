"""docs/exporting.md: its table of tolerances is the code's. (tests/docs runs its commands and its Python.)"""

import re
from pathlib import Path

from byol_tf.exporting.forms import FORMS

DOCS = Path(__file__).parents[3] / "docs" / "exporting.md"
