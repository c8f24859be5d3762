"""Runs side by side from their files."""

import csv
import json
from pathlib import Path

import pytest

from byol_tf.compare import main
from byol_tf.config.loading import load_config, resolved_json
from byol_tf.runs.folder import read_history

HISTORY = """epoch,loss,tau,probe_accuracy,projection_std,projection_cosine,effective_rank
0,,,0.2,0.3,0.9,50.0
1,2.5,0.99,,0.8,0.2,30.0
2,2.0,0.995,0.5,0.9,0.1,40.0
"""


def run(root, name: str, probe: float, *overrides: str, supervised: float | None = None) -> str:
    folder = root / name
    folder.mkdir()
    (folder / "config.json").write_text(resolved_json(load_config("demo", overrides)))
    (folder / "history.csv").write_text(HISTORY.replace("0.5,", f"{probe},"))
    if supervised is not None:
        (folder / "result.json").write_text(json.dumps({"supervised_accuracy": supervised}))
    return str(folder)


def test_intervals_and_what_cannot_be_told_apart(tmp_path, capsys):
    runs = [
        run(tmp_path, name, probe, f"tau.base={tau}")
        for name, probe, tau in (("a", 0.5, 0.9), ("b", 0.46, 0.8), ("c", 0.4, 0.7))
    ]
    for folder in runs:
        (Path(folder) / "result.json").write_text('{"test_images": 1000}')
    assert main([*runs, "--out", str(tmp_path / "x.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert cells(lines[0])[4:7] == ["test images", "untrained", "probe"]
    assert cells(lines[2])[4:7] == ["1000", "20.0 [17.6, 22.6]", "50.0 [46.9, 53.1]"]
    assert "The probe can't tell these from a: b." in lines


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_line_a_setting_the_best_first(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [
        run(tmp_path, "low", 0.3, "tau.base=0.5"),
        run(tmp_path, "one", 0.5, "seed=1", supervised=0.41),
        run(tmp_path, "two", 0.6, "seed=2", "run.root=elsewhere"),
    ]
    assert main(runs) == 0
    head, rule, first, second, *_ = capsys.readouterr().out.splitlines()
    names = [
        "run",
        "tau.base",
        "seeds",
        "epochs",
        "untrained",
        "probe",
        "kNN",
        "spread",
        "cosine",
        "rank",
        "loss",
        "supervised",
    ]
    assert cells(head) == names
    assert set(rule) == {"|", "-"} and len(head) == len(rule) == len(first)
    ends = [
        "2",
        "20.0 ± 0.0",
        "55.0 ± 7.1",
        "",
        "0.900 ± 0.000",
        "0.100 ± 0.000",
        "40.0 ± 0.0",
        "2.000 ± 0.000",
        "41.0",
    ]
    assert cells(first) == ["one and 1 more", "0.99", "1, 2", *ends]
    assert cells(second) == [
        "low",
        "0.5",
        "0",
        "2",
        "20.0",
        "30.0",
        "",
        "0.900",
        "0.100",
        "40.0",
        "2.000",
        "",
    ]
    assert (tmp_path / "comparison.md").read_text().splitlines() == [head, rule, first, second]
    with (tmp_path / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["tau.base"], row["seed"], row["probe_accuracy"]) for row in rows] == [
        ("low", "0.5", "0", "0.3"),
        ("one", "0.99", "1", "0.5"),
        ("two", "0.99", "2", "0.6"),
    ]
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_files_without_a_config_have_their_names(tmp_path, capsys):
    (tmp_path / "other.csv").write_text(HISTORY.replace("0.5", "0.4"))
    out = tmp_path / "figures" / "a.png"
    assert (
        main(
            [
                run(tmp_path, "x=run", 0.5),
                f"no predictor={tmp_path / 'other.csv'}",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert cells(lines[2])[:2] + cells(lines[3])[:2] == ["x=run", "0", "no predictor", ""]
    assert cells(lines[3])[2:] == ["2", "20.0", "40.0", "", "0.900", "0.100", "40.0", "2.000"]
    assert out.exists()


def test_the_same_seed_twice_is_two_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([run(tmp_path, "a", 0.5), run(tmp_path, "b", 0.5)]) == 0
    assert [cells(line)[0] for line in capsys.readouterr().out.splitlines()[2:4]] == ["a", "b"]


def test_many_settings_are_columns_in_the_files_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    many = (
        "tau.base=0.9",
        "training.epochs=9",
        "training.batch_size=64",
        "views.size=24",
        "encoder.width=2",
        "projector.hidden_size=8",
        "predictor.hidden_size=8",
    )
    assert main([run(tmp_path, "a", 0.5), run(tmp_path, "b", 0.4, *many)]) == 0
    printed = capsys.readouterr().out
    assert (
        "tau.base" not in printed
        and "7 settings differ; comparison.md has their columns" in printed
    )
    assert "| tau.base |" in (tmp_path / "comparison.md").read_text()


def test_empty_cells_are_left_out(tmp_path):
    (tmp_path / "history.csv").write_text(HISTORY)
    rows = read_history(tmp_path / "history.csv")
    assert [sorted(row) == sorted(rows[2]) for row in rows] == [False, False, True]
    assert "probe_accuracy" not in rows[1]


def test_folders_without_a_history_are_left_out_and_named(tmp_path, capsys, monkeypatch):
    """As `runs/*` has them: the folder of studies, and a run before its first row."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies" / "runs").mkdir(parents=True)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "history.csv").write_text(HISTORY.splitlines()[0])
    run(tmp_path, "a", 0.5)
    assert main(["a", "new", "studies"]) == 0
    printed = capsys.readouterr()
    assert [cells(line)[0] for line in printed.out.splitlines()[2:3]] == ["a"]
    assert [line.split(": expected a run folder")[0] for line in printed.err.splitlines()] == [
        "skipped: new",
        "skipped: studies",
    ]
    (tmp_path / "comparison.csv").unlink()
    assert main(["a", "new", "nothing"]) == 2  # a slip, and no folder that a glob finds
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "nothing",
        "new",
    ]
    assert not (tmp_path / "comparison.csv").exists()


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n"])
def test_runs_without_history_are_all_named_and_nothing_is_written(
    tmp_path, capsys, content, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        if content is not None:
            (tmp_path / name / "history.csv").write_text(content)
    assert main(["one", "two"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in errors] == ["one", "two"]
    assert all("expected a run folder with a history.csv" in line for line in errors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    ("out", "stem"),
    [
        ("table.csv", "table"),
        ("a/table.md", "a/table"),
        ("table", "table"),
        (".", "comparison"),
        ("folder", "folder/comparison"),
        ("new/", "new/comparison"),
    ],
)
def test_figure_and_tables_are_three_files(tmp_path, capsys, monkeypatch, out, stem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert main([run(tmp_path, "a", 0.5), "--out", out]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{stem}.png, {stem}.csv, {stem}.md"
    assert (tmp_path / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / f"{stem}.csv").read_text().startswith("run,")
    assert (tmp_path / f"{stem}.md").read_text().startswith("| run ")


@pytest.mark.parametrize(
    ("out", "message"), [("a.pdf", "expected a PNG"), ("file/a.png", "Not a directory")]
)
def test_wrong_output_is_refused_before_anything_is_read(tmp_path, capsys, out, message):
    (tmp_path / "file").touch()
    assert main(["nothing", "--out", str(tmp_path / out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("--out ") and message in error and "nothing" not in error


def test_names_with_dollars_and_underscores_are_in_the_legend(tmp_path, monkeypatch):
    from byol_tf.runs import plots

    saved, save = [], plots.save_figure
    monkeypatch.setattr(
        plots, "save_figure", lambda figure, path: (saved.append(figure), save(figure, path))
    )
    names = [r"$\frac$", "_hidden"]
    runs = [f"{name}={run(tmp_path, str(number), 0.5)}" for number, name in enumerate(names)]
    assert main([*runs, "--out", str(tmp_path / "a.png")]) == 0
    assert [text.get_text() for text in saved[0].legends[0].get_texts()] == names


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("history.csv", "epoch,loss\n0," + "9" * 200_000),
        ("result.json", "[" * 100_000),
        ("history.csv", "epoch,loss\n0,1,2\n"),
        ("result.json", '{"test_images": 1e308}'),
    ],
)
def test_damaged_run_among_others_is_named_and_skipped(tmp_path, capsys, name, content):
    good, bad = run(tmp_path, "good", 0.5), run(tmp_path, "bad", 0.5)
    (tmp_path / "bad" / name).write_text(content)
    assert main([good, bad, "--out", str(tmp_path / "a.png")]) == 0
    printed = capsys.readouterr()
    assert "good" in printed.out
    assert printed.err.startswith(f"skipped: {bad}: expected a run folder")


@pytest.mark.parametrize(
    "config",
    ['{"views": null}', *(f'{{"seed": {seed}}}' for seed in ("null", '"a"', "1.5", "[1]"))],
)
def test_run_with_an_odd_config_is_compared(tmp_path, capsys, config):
    good, odd = run(tmp_path, "good", 0.5), run(tmp_path, "odd", 0.5)
    (tmp_path / "odd" / "config.json").write_text(config)
    assert main([good, odd, "--out", str(tmp_path / "a.png")]) == 0
    assert "odd" in capsys.readouterr().out


def test_number_that_is_not_finite_is_left_out_of_the_mean(tmp_path, capsys):
    runs = [run(tmp_path, str(seed), 0.5, f"seed={seed}") for seed in (10, 2)]
    history = tmp_path / "10" / "history.csv"
    history.write_text(history.read_text().replace(",0.5,", ",inf,"))
    assert main([*runs, "--out", str(tmp_path / "a.png")]) == 0
    (line,) = [cells(line) for line in capsys.readouterr().out.splitlines() if "1 more" in line]
    assert "2, 10" in line and "50.0" in line


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("history.csv", "epoch,loss\n0,1,2,3\n"),
        ("history.csv", HISTORY[:-3]),
        ("history.csv", "epoch,loss\n0,\0\n"),
        ("result.json", '{"supervised_accuracy": "X"}'),
        ("result.json", '{"a":' * 100_000),
        ("config.json", "[]"),
    ],
)
def test_damaged_run_is_named_and_the_others_are_compared(
    tmp_path, capsys, monkeypatch, file, content
):
    monkeypatch.chdir(tmp_path)
    good, bad = run(tmp_path, "good", 0.3), run(tmp_path, "bad", 0.5)
    (tmp_path / "bad" / file).write_text(content)
    assert main([bad, good]) == 0
    printed = capsys.readouterr()
    assert f"skipped: {bad}: " in printed.err and file in printed.err
    assert [cells(line)[0] for line in printed.out.splitlines()[2:3]] == ["good"]
    assert main([bad]) == 2
    assert main(["a" * 300, good]) == 2
    assert "File name too long" in capsys.readouterr().err
