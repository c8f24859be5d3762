"""TensorBoard events on disks that are full or change."""

import tensorflow as tf

from byol_tf.train.tensorboard import EventLog


def steps(folder) -> list[int]:
    """The steps of all events that a reader finds, file by file."""
    records = (
        record
        for path in sorted(folder.glob("events.*"))
        for record in tf.data.TFRecordDataset(str(path))
    )
    events = (tf.compat.v1.Event.FromString(record.numpy()) for record in records)
    return [event.step for event in events if event.summary.value]


def test_unwritten_events_come_with_the_next(tmp_path, caplog):
    folder = tmp_path / "logs"
    folder.write_text("in the way")
    events = EventLog(folder)
    for step in (1, 2):
        events.add(step, lambda: tf.summary.scalar("loss", 0.5))
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{folder}: events not written: ")
    folder.unlink()
    for step in (3, 4):
        events.add(step, lambda: tf.summary.scalar("loss", 0.5))
    events.close()
    assert steps(folder) == [1, 2, 3, 4]
    assert len(caplog.messages) == 1


def test_removed_file_ends_nothing(tmp_path):
    events = EventLog(tmp_path)
    for step in (1, 2):
        events.add(step, lambda: tf.summary.scalar("loss", 0.5))
        for path in tmp_path.iterdir():
            path.unlink()
    events.close()


def test_resumed_run_writes_a_new_file(tmp_path):
    for step in (1, 2):
        events = EventLog(tmp_path)
        events.add(step, lambda: tf.summary.scalar("loss", 0.5))
        events.close()
        events.close()
    assert len(list(tmp_path.glob("events.*"))) == 2
    assert sorted(steps(tmp_path)) == [1, 2]
