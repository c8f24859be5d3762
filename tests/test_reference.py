"""The table of `python -m tests.reference`: every formula against NumPy, all below its limit."""

from tests.reference.__main__ import LIMIT, error, main


def test_every_formula_is_in_the_table_and_below_the_limit(capsys):
    assert main() == 0
    printed = capsys.readouterr().out
    rows = [line.split("|")[1:4] for line in printed.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 24
    assert all(float(row[2]) < LIMIT for row in rows)
    for formula in (
        "cosine, symmetrised",
        "two draws",
        "2 replicas",
        "tau: drop",
        "LARS",
        "average",
        "group",
        "standardisation",
        "data_init",
    ):
        assert any(formula in row[0] for row in rows), formula


def test_the_error_is_relative_to_the_largest_value():
    assert error([1.0, 3.0], [1.0, 4.0]) == 0.25
    assert error([[1.0, 3.0]], [[2.0, 4.0]]) == 0.25
