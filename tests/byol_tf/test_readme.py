"""README's commands and its Python example are run as they stand, with small settings where they would take long."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def lines_of(command: str) -> list[str]:
    """Every line of README that begins with `python -m byol_tf.<command>`, continued lines joined."""
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    return [line.split("  #")[0].strip() for line in text.splitlines() if line.startswith(f"python -m byol_tf.{command}")]


def test_the_ten_line_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = [block for block in blocks("python") if "TargetUpdate" in block]
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    namespace = {}
    exec(compile(example, "README.md", "exec"), namespace)
    assert namespace["representations"].shape == (8, 128)


@pytest.mark.parametrize("line", lines_of("train"))
def test_each_train_command_is_accepted(line, tmp_path, capsys, monkeypatch):
    """As `--dry-run`, which checks config, images and network. Textures stand in for photos of one's own."""
    from byol_tf.train import main

    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(line)[3:]
    own_photos = ["--set", "data.source=textures", "--set", "data.root=null"] if "photos" in line else []
    sizes = ["--set", "data.image_size=null", "--set", "views.size=32", "--set", "encoder.name=convnet"] if own_photos else []
    assert main([*arguments, *own_photos, *sizes, "--dry-run"]) == 0
    assert "dry run: nothing was written" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_each_evaluate_command_has_options_that_exist():
    """They are run on a small run in test_evaluate.py; here a run folder would be needed."""
    from byol_tf.evaluate import _parser

    protocols = {_parser().parse_args(shlex.split(line)[3:]).protocol for line in lines_of("evaluate")}
    assert protocols == {"linear", "knn", "finetune", "supervised"}


def test_each_embed_command_has_options_that_exist():
    """They are run on a heap of photos in test_embed.py."""
    from byol_tf.embed import _parser

    given = [_parser().parse_args(shlex.split(line)[3:]) for line in lines_of("embed")]
    assert any(options.nearest for options in given) and any(options.few for options in given)


def test_each_convert_command_has_options_that_exist():
    """They are run on checkpoints made for it in test_convert.py."""
    from byol_tf.convert import _parser

    pages = README + (ROOT / "docs" / "convert.md").read_text(encoding="utf-8")
    lines = [line.split("#")[0] for line in pages.splitlines() if line.startswith("python -m byol_tf.convert")]
    assert {_parser().parse_args(shlex.split(line)[3:]).layout for line in lines} == {"deepmind", "torchvision"}


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {word for line in README.splitlines() for word in re.findall(r"\bmake ([a-z-]+)", line)}
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_files_that_readme_names_exist():
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / name).exists(), name


def test_help_is_quick_and_needs_no_tensorflow():
    code = "import sys, byol_tf.train as t\ntry: t.main(['--help'])\nexcept SystemExit: assert 'tensorflow' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=False).returncode == 0
