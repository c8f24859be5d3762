"""The history of a run on a disk that is full for a while."""

import csv
import errno

from byol_tf.train.callbacks import history
from byol_tf.train.callbacks.history import History
from byol_tf.train.tensorboard import EventLog


def test_unwritten_row_comes_with_the_next(tmp_path, monkeypatch, caplog):
    table = History(tmp_path / "history.csv", EventLog(tmp_path / "logs"), [])
    table.add(0, {"probe_accuracy": 0.1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(history, "write_csv", full)
        table.add(1, {"loss": 3.0})
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        "history.csv not written: [Errno 28] No space left on device"
    )
    table.add(2, {"loss": 2.0})
    with (tmp_path / "history.csv").open() as file:
        assert [(row["epoch"], row["loss"]) for row in csv.DictReader(file)] == [
            ("0", ""),
            ("1", "3.0"),
            ("2", "2.0"),
        ]
