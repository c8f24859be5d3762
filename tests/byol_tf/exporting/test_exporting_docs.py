"""docs/exporting.md: its commands have options that exist, its Python runs, its table of tolerances is the code's."""

import re
import shlex
from pathlib import Path

from byol_tf.export import _formats, _parser
from byol_tf.exporting.forms import FORMATS, FORMS, OF_EVERY_RUN
from tests.byol_tf.small_run import write_run

DOCS = Path(__file__).parents[3] / "docs" / "exporting.md"
README = Path(__file__).parents[3] / "README.md"


def lines() -> list[str]:
    pages = DOCS.read_text(encoding="utf-8") + README.read_text(encoding="utf-8")
    return [line.split("#")[0] for line in pages.splitlines() if line.startswith("python -m byol_tf.export")]


def test_each_export_command_has_options_that_exist():
    """They are run on a small run in test_export.py; here a run folder would be needed."""
    asked = [_formats(_parser().parse_args(shlex.split(line)[3:]).formats) for line in lines()]
    assert asked == [OF_EVERY_RUN, FORMATS, ("litert",), FORMATS]


def test_the_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (name,) = re.findall(r'Path\("(runs/[^"]+)"\)', block)
    Path(name).parent.mkdir(parents=True)
    write_run(Path(name))
    exec(compile(block, "exporting.md", "exec"), {})
    assert sorted(path.name for path in Path("elsewhere").iterdir()) == ["USAGE.md", "encoder", "encoder.keras"]


def test_the_tolerances_are_those_of_the_forms():
    rows = re.findall(r"^\| [^|]+ \| ([\d.]+) \| ([\d.]+) \| (\d+)% \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {(float(difference), float(cosine), int(same) / 100) for difference, cosine, same in rows}
    assert documented == {(form.difference, form.cosine, form.same_neighbour) for form in FORMS}
