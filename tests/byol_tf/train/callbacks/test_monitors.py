"""Logs and warnings of the monitors of training steps."""

import json
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.ema import TargetUpdate, constant_tau
from byol_tf.train.callbacks.monitors import DataWait, StepMonitor, estimate_wait
from byol_tf.train.input_watchdog import InputWatchdog
from tests.helpers import tiny
from tests.helpers.waiting import HANG
from tests.helpers.workers import ROOT

BATCH = 16


class TestEstimateWait:
    def test_one_step_waits_until_the_arrival(self):
        assert estimate_wait(10.0, 13.0, [(9.0, 12.0)]) == pytest.approx(2.0)

    def test_batch_that_arrived_before_the_call_costs_nothing(self):
        assert estimate_wait(10.0, 13.0, [(5.0, 9.0)]) == 0.0

    def test_tracing_before_the_first_request_is_no_wait(self):
        assert estimate_wait(10.0, 33.0, [(30.0, 30.5)]) == pytest.approx(0.5)

    def test_requests_inside_a_call_are_added_up(self):
        """Steps of 2, 1 and 3 s, each of which requests its own batch and waits 1 s."""
        batches = [(0.0, 1.0), (3.0, 4.0), (5.0, 6.0)]
        assert estimate_wait(0.0, 9.0, batches) == pytest.approx(3.0)

    @pytest.mark.parametrize("interval", [0.5, 1.0, 1.5, 4.0])
    def test_batches_requested_ahead_count_only_where_steps_wait(self, interval):
        """A batch comes every `interval` seconds, a step takes 1 s, a buffer requests ahead."""
        count, end, waited = 16, 0.0, 0.0
        batches = [(index * interval, (index + 1) * interval) for index in range(count)]
        for _, arrived in batches:
            waited += max(0.0, arrived - end)
            end = max(end, arrived) + 1.0
        early = [(requested - 0.1, arrived) for requested, arrived in batches]
        assert estimate_wait(0.0, end, early) == pytest.approx(waited)


class SlowInput(keras.callbacks.Callback):
    """Input that is quick in the first epoch, and then takes ten times as long as a step did.

    So the ratio is the same on a busy machine, and tracing is no part of the second epoch.
    """

    def __init__(self, monitor: DataWait, steps_per_execution: int):
        super().__init__()
        self.monitor, self.steps_per_execution = monitor, steps_per_execution
        self.seconds, self.calls = 0.0, []
        monitor.window = np.inf

    def read(self, index: np.ndarray) -> np.ndarray:
        time.sleep(self.seconds)
        return np.int64(index)

    def on_train_batch_begin(self, batch, logs=None):
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(time.perf_counter() - self.began)

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:  # without the call that was traced
            self.seconds = max(0.1, 10 * max(self.calls[1:]) / self.steps_per_execution)
            # Of many batches: some of a call are read before it begins, and at once.
            self.monitor.window = 10 * self.seconds


def fit(
    caplog, batches: int, steps_per_execution: int = 1
) -> tuple[dict[str, list[float]], list[str], float]:
    """History and log lines of two epochs of `SlowInput`, and the seconds that a batch takes."""
    model = tiny.model(tau=1.0)
    model.compile(
        keras.optimizers.SGD(0.01), jit_compile=False, steps_per_execution=steps_per_execution
    )
    views = [view[0] for view in tiny.views(1, BATCH)]
    watchdog = InputWatchdog(pytest.fail)
    monitor = DataWait(watchdog, BATCH, "smaller photos", window=1.0)
    slow = SlowInput(monitor, steps_per_execution)
    data = tf.data.Dataset.range(2 * batches).map(
        lambda index: tf.ensure_shape(tf.numpy_function(slow.read, [index], tf.int64), ())
    )
    data = data.map(lambda _: tuple(map(tf.constant, views)))
    with caplog.at_level("INFO"):
        history = model.fit(
            watchdog.watch(data),
            epochs=2,
            steps_per_epoch=batches,
            callbacks=[TargetUpdate(constant_tau(0.9)), slow, monitor],
            verbose=0,
            shuffle=False,
        )
    return history.history, caplog.messages, slow.seconds


@pytest.mark.parametrize("steps_per_execution", [1, 5])
def test_slow_input_is_logged_and_warned_of_once(caplog, steps_per_execution):
    history, (warning,), seconds = fit(caplog, 20, steps_per_execution)
    assert 0.34 < history["data_wait"][1] <= 1.0
    percent, arriving, possible = (
        float(number.replace(",", ""))
        for number in re.findall(r"([\d,]+)(?:%| images/s|\. More)", warning)
    )
    assert percent > 33
    # The batches of a call may be read before it begins, and numbers are rounded.
    assert arriving < (0.5 + steps_per_execution) * BATCH / seconds + 1
    assert possible > arriving
    assert warning.endswith(
        ". More cores would help, or less work per image: smaller photos. --dry-run measures both"
    )


def warnings_of(
    monkeypatch, caplog, steps: list[tuple[float, float]], window: float
) -> tuple[float, list[str]]:
    """`data_wait` and warnings of an epoch of steps that wait and compute for given seconds."""
    now, times = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monitor = DataWait(SimpleNamespace(pop_times=lambda _: [times.pop()]), BATCH, "", window)
    logs: dict[str, float] = {}
    monitor.on_epoch_begin(0)
    for index, (wait, compute) in enumerate(steps):
        monitor.on_train_batch_begin(index)
        times.append((now[0], now[0] + wait))
        now[0] += wait + compute
        monitor.on_train_batch_end(index, logs)
    monitor.on_epoch_end(0, logs)
    return logs["data_wait"], caplog.messages


@pytest.mark.parametrize(("wait", "count"), [(1.9, 0), (2.1, 1)])
def test_warning_comes_once_from_a_third_of_the_time_on(monkeypatch, caplog, wait, count):
    data_wait, lines = warnings_of(monkeypatch, caplog, [(wait, 4.0)] * 30, window=30.0)
    assert data_wait == pytest.approx(wait / (wait + 4.0))
    assert len(lines) == count


def test_one_late_batch_in_a_window_is_not_warned_of(monkeypatch, caplog):
    steps = [(0.0, 1.0)] * 40 + [(9.0, 1.0)] + [(0.0, 1.0)] * 40
    data_wait, lines = warnings_of(monkeypatch, caplog, steps, window=30.0)
    assert data_wait == pytest.approx(9 / 90)
    assert lines == []


def test_data_wait_is_logged_under_op_determinism():
    """In a process of its own: determinism can't be switched off again."""
    code = (
        "import tensorflow as tf, contextlib\n"
        "from types import SimpleNamespace\n"
        "tf.keras.utils.set_random_seed(0)\n"
        "tf.config.experimental.enable_op_determinism()\n"
        "from tests.byol_tf.train.callbacks.test_monitors import fit\n"
        "caplog = SimpleNamespace(at_level=lambda _: contextlib.nullcontext(), messages=[])\n"
        "print(fit(caplog, 5)[0]['data_wait'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stderr
    assert all(0.0 < share < 1.0 for share in json.loads(done.stdout))


class Jumps(tiny.BYOL):
    """A model whose loss is ten times as large at two of its steps, counted from 1."""

    at = (50, 151)

    def loss_and_gradients(self, views):
        measures, gradients = super().loss_and_gradients(views)
        jumps = tf.reduce_any(
            self.optimizer.iterations.value + 1
            == tf.constant(self.at, self.optimizer.iterations.value.dtype)
        )
        return measures | {"loss": tf.where(jumps, 10.0, 1.0) * measures["loss"]}, gradients


def test_skipped_steps_and_jumps_are_reported(caplog):
    model = tiny.model(on_nonfinite="skip", of_class=Jumps)
    model.compile(keras.optimizers.SGD(1e-4), jit_compile=False, steps_per_execution=3)
    first, second = tiny.views(180, 8)
    for batch in (3, 5, 169):
        first[batch, 0, 0, 0, 0] = np.nan
    data = tf.data.Dataset.from_tensor_slices((first, second))
    with caplog.at_level("INFO"):
        history = model.fit(
            data.repeat(),
            epochs=2,
            steps_per_epoch=90,
            verbose=0,
            shuffle=False,
            callbacks=[TargetUpdate(constant_tau(0.9)), StepMonitor()],
        ).history
    assert history["skipped_steps"] == [2, 3]
    assert [line.split(",")[0].split(":")[0] for line in caplog.messages] == [
        "step 4 skipped",
        "2 steps of epoch 1 were skipped",
        # The optimizer's 151st step, as two were skipped before it. At its 50th there were fewer
        # than 100 to compare with.
        "the loss jumped at step 153",
        "step 170 skipped",
    ]
