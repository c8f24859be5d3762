"""The list of studies in `docs/studies.md` is made from their files. Run as a script, this writes
it anew."""

import json
import re
from pathlib import Path

from byol_tf.study.plan import plan_study
from byol_tf.study.schema import SCALES, Study, load_study, packaged_studies

DOCS = Path(__file__).resolve().parents[3] / "docs" / "studies.md"
LIST = re.compile(r"(?<=<!-- studies -->\n).*(?=<!-- /studies -->)", re.DOTALL)


def listed() -> str:
    """The table of all studies."""
    lines = [
        "| study | question | cells | runs: small | paper | the paper's figures |",
        "|---|---|---|---|---|---|",
    ]
    for name in packaged_studies():
        _, file, study = load_study(name)
        runs = [
            len({each.run_name for each in plan_study(file, study, scale, 1, [], [])})
            if scale in study.scales
            else ""
            for scale in SCALES
        ]
        figures = sum(cell.paper is not None for cell in study.cells)
        title = f"[{name}](../configs/studies/{name}.json)"
        lines.append(
            f"| {title} | {study.question} | {len(study.cells)} | {runs[0]} | {runs[1]} | "
            f"{figures} |"
        )
    return "\n".join(lines) + "\n"


def test_the_list_is_fresh():
    (found,) = LIST.findall(DOCS.read_text())
    assert found == listed(), f"stale: python {Path(__file__).name} writes it anew"


def test_the_example_is_a_study(tmp_path):
    (example,) = re.findall(r"```json\n(.*?)```", DOCS.read_text(), re.DOTALL)
    file = tmp_path / "mine.json"
    file.write_text(example)
    name, file, study = load_study(str(file))
    planned = plan_study(file, study, "small", None, [], [])
    assert (name, len(planned), len({each.run_name for each in planned})) == ("mine", 8, 4)


def test_every_key_is_explained():
    keys = json.loads(json.dumps(Study.model_json_schema(by_alias=True)))["$defs"]["Cell"][
        "properties"
    ]
    assert all(f"`{key}`" in DOCS.read_text() for key in keys)


if __name__ == "__main__":
    DOCS.write_text(LIST.sub(lambda _: listed(), DOCS.read_text()))
