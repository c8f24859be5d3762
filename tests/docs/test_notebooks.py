"""The notebooks are their scripts, and run from top to bottom."""

import ast
import configparser
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.docs.pages import ROOT
from tests.helpers.waiting import HANG

jupytext = pytest.importorskip("jupytext", reason="jupytext isn't installed (extra test)")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
COLAB = ROOT / "notebooks" / "byol_tf_colab.py"
SMALL = {
    "byol_tf_colab": {
        "EPOCHS": 1,
        "changes": [
            "data.pretrain_images=256",
            "optimizer.warmup_epochs=0",
            "probe.train_images=50",
        ],
    },
    "image_search": {
        "EPOCHS": 1,
        "changes": ["data.pretrain_images=128", "optimizer.warmup_epochs=0", "encoder.width=0.5"],
    },
}
"""What takes the place of the cell `parameters`: an epoch of few images."""


def by_name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("script", NOTEBOOKS, ids=by_name)
def test_the_notebook_is_its_script(script):
    written, made = jupytext.read(script.with_suffix(".ipynb")), jupytext.read(script)
    cells = [
        [(cell.cell_type, cell.source, cell.metadata.get("tags")) for cell in notebook.cells]
        for notebook in (written, made)
    ]
    assert cells[0] == cells[1], (
        f"jupytext --to ipynb --update notebooks/{script.name} makes it anew"
    )


@pytest.mark.parametrize("script", NOTEBOOKS, ids=by_name)
def test_names_that_it_imports_exist(script):
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith(("byol_tf", "pipelines")):
            exec(ast.unparse(node), {})


def test_each_has_a_small_form():
    assert {script.stem for script in NOTEBOOKS} == set(SMALL)


def test_each_machine_has_its_extra():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    machines = set(re.findall(r'MACHINE = "(\w+)"', COLAB.read_text(encoding="utf-8")))
    assert machines == {"cpu", "gpu", "tpu"} and machines <= set(setup["options.extras_require"])
    for version in ("2.19.1", "2.20.0"):  # as the notebook says
        assert f"tensorflow-tpu=={version}" in setup["options.extras_require"]["tpu"]


RECORDING = """
import importlib.util, json
from pathlib import Path
MACHINE, SOURCE = "cpu", {source!r}
def run(*words): print(json.dumps(words))
"""
"""What stands before the install cell: the names that the cells above it leave, and a pip that is but recorded."""


def install(folder: Path, source: str | None) -> subprocess.CompletedProcess:
    """Runs the install cell in a folder, by a Python that sees the standard library and the folder alone."""
    (cell,) = [
        cell.source for cell in jupytext.read(COLAB).cells if '"pip", "install"' in cell.source
    ]
    line = [sys.executable, "-S", "-E", "-c", RECORDING.format(source=source) + cell]
    return subprocess.run(
        line, cwd=folder, capture_output=True, text=True, timeout=HANG, check=False
    )


CLONE = ("byol_tf/setup.cfg", "byol_tf/byol_tf/__init__.py")
WHEEL = "byol_tf-0.1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("files", "source", "wanted"),
    [
        (CLONE, None, "{here}/byol_tf[cpu]"),
        ([WHEEL], None, "{here}/" + WHEEL + "[cpu]"),
        ([f"drive/{WHEEL}"], f"drive/{WHEEL}", "{here}/drive/" + WHEEL + "[cpu]"),
        (["drive/setup.cfg", *CLONE], "drive", "{here}/drive[cpu]"),
        (
            [],
            "git+https://example.org/byol_tf.git",
            "byol-tf[cpu] @ git+https://example.org/byol_tf.git",
        ),
    ],
    ids=["clone", "wheel", "wheel elsewhere", "folder elsewhere", "git"],
)
def test_the_notebook_installs_what_is_there(files, source, wanted, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    done = install(tmp_path, source)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        "-m",
        "pip",
        "install",
        "--quiet",
        wanted.format(here=tmp_path.resolve()),
    ]


@pytest.mark.parametrize("source", [None, "byol_tf", "elsewhere.whl"])
def test_the_notebook_says_what_to_do_where_nothing_is_there(source, tmp_path):
    (tmp_path / "byol_tf").mkdir()  # Python would import it, as a namespace
    done = install(tmp_path, source)
    assert done.returncode == 1 and done.stdout == ""
    for part in (
        "byol_tf isn't installed",
        "Upload a wheel",
        'SOURCE to "git+https://..."',
        str(source or tmp_path.resolve()),
    ):
        assert part in done.stderr


def test_the_notebook_installs_nothing_over_what_is_installed(tmp_path):
    (tmp_path / "byol_tf").mkdir()
    (tmp_path / "byol_tf" / "__init__.py").touch()
    assert install(tmp_path, None).stdout == "byol_tf is there\n"


def test_the_notebook_leaves_gpu_and_tpu_to_its_commands():
    """In the first cell that uses TensorFlow; its commands inherit the environment, so they have to find it as it was."""
    uses = re.compile(r"^(import|from) (keras|tensorflow|byol_tf)", re.MULTILINE)
    cell = next(cell.source for cell in jupytext.read(COLAB).cells if uses.search(cell.source))
    lines = [line.partition("  #")[0] for line in cell.splitlines()]
    order = (
        'os.environ["TPU_LOAD_LIBRARY"] = "0"',
        "import keras",
        "import tensorflow as tf",
        'del os.environ["TPU_LOAD_LIBRARY"]',
        'tf.config.set_visible_devices([], "GPU")',
        "from byol_tf.models.from_config import build_config_encoder",
    )
    places = [lines.index(line) for line in order]
    assert places == sorted(places)


@pytest.mark.long
@pytest.mark.parametrize("script", NOTEBOOKS, ids=by_name)
def test_the_notebook_runs_from_top_to_bottom(script, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient isn't installed (extra test)")
    pytest.importorskip("ipykernel", reason="ipykernel isn't installed (extra test)")
    monkeypatch.chdir(tmp_path)  # so that byol_tf is the installed one, or that of PYTHONPATH
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # the kernel's own
    notebook = jupytext.read(script)
    (parameters,) = [
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    ]
    small = SMALL[script.stem]
    overrides = [word for change in small["changes"] for word in ("--set", change)]
    parameters.source += f"\nEPOCHS = {small['EPOCHS']}\nOVERRIDES = {overrides}"
    nbclient.NotebookClient(
        notebook,
        timeout=HANG,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 3
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
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
