"""The table of a run survives a disk that is full for a while."""

import csv
import errno

from byol_tf.train.callbacks import csv_logger as history
from byol_tf.train.callbacks.csv_logger import History
from byol_tf.train.tensorboard import EventLog


def test_a_row_that_could_not_be_written_comes_with_the_next(tmp_path, monkeypatch):
    said = []
    rows = History(
        tmp_path / "history.csv", EventLog(tmp_path / "logs", said.append), [], said.append
    )
    rows.add(0, {"probe_accuracy": 0.1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(history, "write_csv", full)
        rows.add(1, {"loss": 3.0})
    assert len(said) == 1
    assert said[0].startswith(
        "warning: history.csv not written: [Errno 28] No space left on device"
    )
    rows.add(2, {"loss": 2.0})
    with (tmp_path / "history.csv").open() as file:
        assert [(row["epoch"], row["loss"]) for row in csv.DictReader(file)] == [
            ("0", ""),
            ("1", "3.0"),
            ("2", "2.0"),
        ]
