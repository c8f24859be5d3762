"""Runs side by side from their files."""

from byol_tf.compare import main
from byol_tf.history_file import read_history

HISTORY = """epoch,loss,tau,probe_accuracy,projection_std,projection_cosine,effective_rank
0,,,0.2,0.3,0.9,50.0
1,2.5,0.99,,0.8,0.2,30.0
2,2.0,0.995,0.5,0.9,0.1,40.0
"""


def test_a_line_a_run_and_one_figure(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "history.csv").write_text(HISTORY)
    (tmp_path / "other.csv").write_text(HISTORY.replace("0.5", "0.4"))
    out = tmp_path / "figure.png"
    assert main([str(tmp_path / "run"), f"no predictor={tmp_path / 'other.csv'}", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["run", "2", "20.0%", "50.0%", "0.900", "0.100", "40.0", "2.000"]
    assert lines[2].split() == ["no", "predictor", "2", "20.0%", "40.0%", "0.900", "0.100", "40.0", "2.000"]
    assert out.read_bytes().startswith(b"\x89PNG")


def test_empty_cells_are_left_out(tmp_path):
    (tmp_path / "history.csv").write_text(HISTORY)
    rows = read_history(tmp_path / "history.csv")
    assert [sorted(row) == sorted(rows[2]) for row in rows] == [False, False, True]
    assert "probe_accuracy" not in rows[1]


def test_a_run_without_history_is_named(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert f"{tmp_path}: expected a run folder with a history.csv" in capsys.readouterr().err
