"""Tests of the documentation of config keys: `--explain`, `--help` and `docs/config.md`."""

import re
from pathlib import Path

import pytest

from byol_tf.config.docs import config_markdown, explain, keys
from byol_tf.config.fields import SECTIONS
from byol_tf.train.__main__ import main

ROOT = Path(__file__).parents[3]


def test_config_page_is_up_to_date():
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == config_markdown()


def test_every_key_is_documented():
    assert [key for key, info in keys() if not info.description] == []


def test_explain_key(capsys):
    assert main(["--explain", "training.epochs"]) == 0
    assert (
        capsys.readouterr().out
        == "training.epochs: a whole number of 1 or more; needed\n  Passes over the pre-training "
        "images.\n"
    )


def test_explain_section_lists_all_its_keys():
    lines = explain("tau").splitlines()
    assert [line.split(":")[0] for line in lines if not line.startswith(" ")] == [
        "tau.schedule",
        "tau.base",
        "tau.end",
        "tau.drop_at",
    ]
    assert lines[2] == "tau.base: a number from 0 to 1; default: 0.996"


def test_help_lists_sections_and_explain_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    assert printed.endswith("--explain SECTION\n")
    help_lines = dict(
        re.findall(r"^  (\S+) +(\S.*)$", printed.partition("sections of a config")[2], re.MULTILINE)
    )
    assert set(help_lines) == {".".join(section) for section in SECTIONS if section}
    assert help_lines["training"] == "Epochs and batches of pre-training."
    assert help_lines["monitor"].startswith("Reactions to collapse and non-finite numbers")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("epochs", "; did you mean training.epochs?"),
        ("training.epoch", "; did you mean training.epochs"),
        ("no.such.thing", ""),
    ],
)
def test_explain_unknown_key_names_near_ones(name, hint, capsys):
    assert main(["--explain", name]) == 2
    assert f"--explain {name}: no such key{hint}" in capsys.readouterr().err
