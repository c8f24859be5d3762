"""Time without a change, in which a stop of this process doesn't count."""

from types import SimpleNamespace

from byol_tf.runs import idle_timer
from byol_tf.runs.idle_timer import IdleTimer


def test_seconds_count_from_the_last_change_and_not_while_stopped(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(idle_timer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    timer, seen = IdleTimer(), []
    for now[0], value in ((100, "a"), (101, "a"), (102.5, "a"), (900, "a"), (901, "b"), (902, "b")):
        seen.append(timer.look(value))
    assert seen == [0.0, 1.0, 2.5, 4.5, 0.0, 1.0]
    assert timer.seconds == 1.0
