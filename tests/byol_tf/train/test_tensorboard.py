"""Events that couldn't be written come with the next."""

import tensorflow as tf

from byol_tf.train.tensorboard import EventLog


def steps(folder) -> list[int]:
    """Of all events that a reader finds, file by file."""
    records = (
        record
        for path in sorted(folder.glob("events.*"))
        for record in tf.data.TFRecordDataset(str(path))
    )
    events = (tf.compat.v1.Event.FromString(record.numpy()) for record in records)
    return [event.step for event in events if event.summary.value]


def test_events_wait_until_there_is_a_place_for_them(tmp_path):
    said, folder = [], tmp_path / "logs"
    folder.write_text("in the way")
    events = EventLog(folder, said.append)
    for step in (1, 2):
        events.add(step, lambda: tf.summary.scalar("loss", 0.5))
    assert len(said) == 1
    assert said[0].startswith(f"warning: {folder}: events not written: ")
    folder.unlink()
    for step in (3, 4):
        events.add(step, lambda: tf.summary.scalar("loss", 0.5))
    events.close()
    assert steps(folder) == [1, 2, 3, 4]
    assert len(said) == 1


def test_a_file_that_somebody_removes_ends_nothing(tmp_path):
    events = EventLog(tmp_path)
    for step in (1, 2):
        events.add(step, lambda: tf.summary.scalar("loss", 0.5))
        for path in tmp_path.iterdir():
            path.unlink()
    events.close()


def test_a_run_that_goes_on_has_a_file_of_its_own(tmp_path):
    for step in (1, 2):
        events = EventLog(tmp_path)
        events.add(step, lambda: tf.summary.scalar("loss", 0.5))
        events.close()
        events.close()
    assert len(list(tmp_path.glob("events.*"))) == 2
    assert sorted(steps(tmp_path)) == [1, 2]
