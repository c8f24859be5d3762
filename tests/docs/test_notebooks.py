"""The notebooks are their scripts, and run from top to bottom."""

import configparser
import csv
import re
from pathlib import Path

import numpy as np
import pytest

from tests.docs.pages import ROOT

jupytext = pytest.importorskip("jupytext", reason="jupytext isn't installed (extra test)")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
SMALL = {
    "byol_tf_colab": {"EPOCHS": 1, "changes": ["data.pretrain_images=256", "optimizer.warmup_epochs=0", "probe.train_images=50"]},
    "image_search": {"EPOCHS": 1, "changes": ["data.pretrain_images=128", "optimizer.warmup_epochs=0", "encoder.width=0.5"]},
}
"""What takes the place of the cell `parameters`: an epoch of few images."""


def by_name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("script", NOTEBOOKS, ids=by_name)
def test_the_notebook_is_its_script(script):
    written, made = jupytext.read(script.with_suffix(".ipynb")), jupytext.read(script)
    cells = [[(cell.cell_type, cell.source, cell.metadata.get("tags")) for cell in notebook.cells] for notebook in (written, made)]
    assert cells[0] == cells[1], f"jupytext --to ipynb --update notebooks/{script.name} makes it anew"


def test_each_has_a_small_form():
    assert {script.stem for script in NOTEBOOKS} == set(SMALL)


def test_each_machine_has_its_extra():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    machines = set(re.findall(r'MACHINE = "(\w+)"', (ROOT / "notebooks" / "byol_tf_colab.py").read_text(encoding="utf-8")))
    assert machines == {"cpu", "gpu", "tpu"} and machines <= set(setup["options.extras_require"])
    assert "tensorflow-tpu==2.19.1" in setup["options.extras_require"]["tpu"]  # as the notebook says


@pytest.mark.long
@pytest.mark.parametrize("script", NOTEBOOKS, ids=by_name)
def test_the_notebook_runs_from_top_to_bottom(script, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient isn't installed (extra test)")
    pytest.importorskip("ipykernel", reason="ipykernel isn't installed (extra test)")
    monkeypatch.chdir(tmp_path)  # so that byol_tf is the installed one, or that of PYTHONPATH
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # the kernel's own
    notebook = jupytext.read(script)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    small = SMALL[script.stem]
    overrides = [word for change in small["changes"] for word in ("--set", change)]
    parameters.source += f"\nEPOCHS = {small['EPOCHS']}\nOVERRIDES = {overrides}"
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "1 epochs, " in printed
    if script.stem == "byol_tf_colab":
        assert "no TPU here: going on with the cpu" in printed and printed.count("top-1 ") >= 2
        difference = float(re.search(r"largest difference of the two: (\S+)", printed)[1])
        assert difference < 1e-4
        assert (tmp_path / "encoder.zip").stat().st_size > 100_000
    else:
        with (tmp_path / "embedded" / "nearest.csv").open() as file:
            found = list(csv.DictReader(file))
        assert len(found) == 6 * 8 and {row["query"] for row in found} == {
            f"{place:04}.png" for place in np.linspace(0, 1999, 6).astype(int)
        }
        assert len((tmp_path / "embedded" / "index.csv").read_text().splitlines()) == 1 + 2_000
