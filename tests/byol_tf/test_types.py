"""Types of the public names, as editors and type checkers see them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import byol_tf
from tests.helpers.waiting import HANG

ROOT = Path(byol_tf.__file__).resolve().parents[1]


def test_each_public_name_has_a_static_import():
    tree = ast.parse((ROOT / "byol_tf" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imported = {alias.asname: node.module for node in block.body for alias in node.names}
    assert imported == byol_tf._HOMES


@pytest.mark.long
def test_mypy_finds_misspelt_names_and_arguments(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "use.py").write_text(
        "import byol_tf\n"
        "encoder = byol_tf.build_encoder('convnet', 32)\n"
        "byol_tf.BYOL(encoder, targte='ema')\n"
        "byol_tf.BYLO(encoder)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", f"--cache-dir={tmp_path}", str(tmp_path / "use.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert 'use.py:3: error: Unexpected keyword argument "targte" for "BYOL"' in done.stdout
    assert 'use.py:4: error: Module has no attribute "BYLO"' in done.stdout
    assert "Found 2 errors" in done.stdout
