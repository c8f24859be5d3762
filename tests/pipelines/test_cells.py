"""Cells of tables that a spreadsheet may open."""

import pytest

from pipelines.cells import text_cell, text_of_cell


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1+1", "-a", "@SUM(1)", "'=1+1", "=1e5+1"])
def test_formula_is_text_and_stays_the_same(text):
    assert text_cell(text) == f"'{text}" and text_of_cell(text_cell(text)) == text


@pytest.mark.parametrize("text", ["cat", "-1", "-0.5", "-1.2e-05", "-", "'til", "a=b", "", "日本"])
def test_other_text_is_written_as_it_is(text):
    assert text_cell(text) == text == text_of_cell(text)
