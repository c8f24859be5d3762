"""The lines that a run prints for its epochs, and the bar between them."""

import io
from types import SimpleNamespace

import pytest

from byol_tf import logs
from byol_tf.config.schedule import Schedule
from byol_tf.train.callbacks import progress
from byol_tf.train.callbacks.progress import Progress

LABELLED = {"probe_accuracy": 0.158, "projection_std": 0.99, "effective_rank": 71.23}


class Terminal(io.StringIO):
    """A terminal of 80 columns, and what was written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Run:
    """Two epochs of ten steps, each of which takes a second."""

    def __init__(self, monkeypatch, first_row: dict[str, float]):
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)
        self.rows = [{"epoch": 0, **first_row}]
        self.progress = Progress(2, Schedule(10, 20, 0, 0.1), self.rows)
        self.model = SimpleNamespace(steps_seen=0)
        self.progress.set_model(self.model)

    def train(self, row: dict[str, float]) -> None:
        self.progress.on_train_begin()
        for epoch in (0, 1):
            self.progress.on_epoch_begin(epoch)
            for step in range(10):
                self.now += 1.0
                self.model.steps_seen += 1
                self.progress.on_train_batch_end(step, {"loss": 2.5})
            self.rows.append({"epoch": epoch + 1, "loss": 1.25, **row})
            self.progress.on_epoch_end(epoch)


def test_epoch_is_a_line_with_four_figures_and_the_time_left(monkeypatch, capsys):
    run = Run(monkeypatch, LABELLED)
    run.train({"projection_std": 0.5, "effective_rank": 1234.5, "images_per_second": 1e6})
    assert capsys.readouterr().out == (
        "      epoch       loss      probe     spread       rank   time left\n"
        "        0/2          -      15.8%       0.99       71.2\n"
        "        1/2     1.2500          -       0.50     1234.5   about 10 s\n"
        "        2/2     1.2500          -       0.50     1234.5\n"
    )


def test_images_per_second_take_the_place_of_a_probe_without_labels(monkeypatch, capsys):
    run = Run(monkeypatch, {"projection_std": 0.99, "effective_rank": 71.23})
    run.train({"projection_std": 0.5, "effective_rank": 60.0, "images_per_second": 1234.5})
    heading, *_, last = capsys.readouterr().out.splitlines()
    assert heading.split() == ["epoch", "loss", "spread", "rank", "images/s", "time", "left"]
    assert last.split() == ["2/2", "1.2500", "0.50", "60.0", "1,234"]


@pytest.mark.parametrize("columns", [40, 80])
def test_terminal_shows_a_bar_that_never_wraps(columns, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    Run(monkeypatch, LABELLED).train({})
    shown = terminal.getvalue().split("\r\x1b[K")
    bars = [text for text in shown if "/10  loss" in text or "━" in text]
    assert len(bars) == 18 and max(map(len, bars)) < columns
    if columns == 80:
        assert bars[4] == "        1/2  ━━━━━━━━━━──────────  5/10  loss 2.5000  about 15 s left"
    assert sum("measures and checkpoint" in text for text in shown) == 2


def test_next_line_takes_the_place_of_the_status(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.__stdout__", terminal)
    monkeypatch.setenv("TERM", "xterm")
    logs.ignore_output_errors()
    logs.show_status("reading")
    print("a line")
    assert terminal.getvalue() == "\r\x1b[Kreading\r\x1b[Ka line\n"
