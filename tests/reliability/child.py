"""What runs inside the processes of these tests: the real command, with a record of each step, and
something that goes wrong on purpose.

`python -m tests.reliability.child` imports all that a run needs, then forks a process for each line
of JSON that it reads: seconds of import are paid once. TensorFlow's runtime hasn't started when it
forks (`no_runtime` makes sure), so a fork is what a new process is after its imports. What it
writes: `{"pid": ..., "number": ...}` when a process has begun, `{"number": ..., "code": ...}` when
it has ended.

A line's keys: `number`; `output`, a file; `environment`, to be added; and either `read`, see
`reader.py`, or

* `arguments` of `byol_tf.train`;
* `record`, a file for a line a step;
* `faults`, each `{"moment", "step", "kind"}`: see `reach`;
* `patient`: before a step ends, the checkpoint before it is whole, so that there will be one after
  each;
* `patience`, seconds after which images count as stuck, and a third more after which a save counts
  as one that hangs;
* `light`, by default: without pictures and export, which change nothing that is learned;
* `shift`, `means`, `scale`, `watched`, `stall_exit` and `keys`, which take a protection out: another
  batch than the next one, no running means, the loss scale of a first step, nobody who takes note
  of signals while steps are made, no exit when images never arrive, new keys
  for the collectives of each step.

The loss scale of float16 doubles after 3 steps here, not after 2,000, so that it isn't the first
one any more when a run is broken off.
"""

import functools
import hashlib
import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

from byol_tf.devices import prepare_environment

prepare_environment()

import keras
import tensorflow as tf
from tensorflow.python.eager import context

from byol_tf import devices
from byol_tf.models import byol
from byol_tf.runs import checkpoint_format as checkpoint_files
from byol_tf.runs import checkpoint_writer
from byol_tf.train import data as opened_images
from byol_tf.train import experiment
from byol_tf.train import finish as outcome
from byol_tf.train.__main__ import command
from byol_tf.train.callbacks import probe
from byol_tf.train.callbacks.checkpoint import model_arrays
from byol_tf.train.signals import SignalWatch
from tests.reliability.reader import read

EVER = threading.Event()
done = {"steps": 0}
faults: list[dict] = []
slowness, one_by_one = {"seconds": 0.0}, threading.Lock()


def reach(moment: str) -> None:
    """Called where a run is now; does what is to go wrong there, once, as soon as `step` steps are
    done.

    `mark`: a file that is made then. `kind`: a signal's name, sent to this process; `twice` sends
    SIGTERM two times; `raise`; `stuck`: this thread waits for ever; `slow`: every batch takes 0.3 s
    from now on.
    """
    for fault in [
        fault for fault in faults if fault["moment"] == moment and fault["step"] <= done["steps"]
    ]:
        faults.remove(fault)
        kind = fault["kind"]
        if "mark" in fault:
            Path(fault["mark"]).touch()
        if kind == "raise":
            raise RuntimeError("wrong on purpose")
        if kind == "stuck":
            EVER.wait()
        elif kind == "slow":
            slowness["seconds"] = 0.3
        elif kind == "twice":
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.1)
        else:
            os.kill(os.getpid(), getattr(signal, kind))
            time.sleep(
                0.05
            )  # the thread that watches takes note of it here, and not a moment later


def before(moment: str, real):
    """A function that is the real one, but for what goes wrong before."""

    @functools.wraps(real)
    def wrapped(*arguments, **named):
        reach(moment)
        return real(*arguments, **named)

    return wrapped


class Record(keras.callbacks.Callback):
    """Writes a line a step: its number in the run, the epoch's means so far to the last bit, and
    which images it was made of."""

    def __init__(self, path: str | None, patient: bool):
        super().__init__()
        self.patient, self.seen = patient, []
        # Held open, as a run may be out of files on purpose.
        self.file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        step = done["steps"] + 1
        digest = hashlib.sha256(b"".join(ids.tobytes() for ids in self.seen)).hexdigest()[:16]
        line = {
            "step": step,
            "epoch": self.epoch,
            "loss": float(logs["loss"]).hex(),
            "spread": float(logs["projection_std"]).hex(),
        }
        self.write(line | {"images": digest, "time": time.time()})
        self.seen.clear()
        done["steps"] = step
        for thread in threading.enumerate():
            if self.patient and thread.name == "checkpoint":
                thread.join()
        reach("step")

    def on_epoch_end(self, epoch, logs=None):
        reach("epoch end")

    def on_train_end(self, logs=None):
        digest = hashlib.sha256(
            b"".join(array.tobytes() for array in model_arrays(self.model).values())
        ).hexdigest()
        self.write({"step": done["steps"], "end": digest})

    def write(self, line: dict) -> None:
        if self.file is not None:
            os.write(self.file, json.dumps(line).encode() + b"\n")


def prepare(job: dict) -> None:
    """Puts the record, and what goes wrong, around the real functions."""
    faults.extend(job.get("faults", []))
    record = Record(job.get("record"), job.get("patient", False))
    real_fit, real_step, real_batches = (
        experiment.Experiment._fit,
        byol.BYOL.reported_step,
        experiment.train_batches,
    )

    def fit(self, start, watchers, verbose):
        done["steps"] = start.epoch * self.schedule.steps_per_epoch + start.step
        reach("before the first step")
        return real_fit(self, start, [record, *watchers], verbose)

    def reported_step(self, batch):
        reach("tracing")

        def note(ids):
            record.seen.append(ids)
            reach("inside the step")
            return ids

        with tf.control_dependencies([tf.numpy_function(note, [batch[-1]], tf.int64)]):
            return real_step(self, batch)

    def train_batches(config, images, first_step=0, *rest):
        whole = images.batch

        def batch(indices):
            reach("data")
            with one_by_one:  # or many slow ones at once would be as fast as before
                time.sleep(slowness["seconds"])
            return whole(indices)

        images.batch = batch
        return real_batches(config, images, first_step + job.get("shift", 0), *rest)

    if "patience" in job:
        experiment.InputWatchdog = functools.partial(experiment.InputWatchdog, patience=job["patience"])
        checkpoint_writer.SLOW = 4 / 3 * job["patience"]
    resumed, compiled, restored = (
        experiment.ResumedEpoch,
        experiment.compile_model,
        experiment.restore_model,
    )

    def compile_model(model, *rest):
        compiled(model, *rest)
        if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
            model.optimizer.dynamic_growth_steps = 3

    def restore_without_scale(model, arrays):
        first = {
            name: array for name, array in model_arrays(model).items() if "dynamic_scale" in name
        }
        restored(model, arrays | first)

    experiment.compile_model = compile_model
    experiment.Experiment._fit, byol.BYOL.reported_step, experiment.train_batches = (
        fit,
        reported_step,
        train_batches,
    )
    opened_images.open_source = before("start", opened_images.open_source)
    experiment.recover = before("reading", experiment.recover)
    probe.Probe.measure = before("probe", probe.Probe.measure)
    checkpoint_files._sealed = before("save", checkpoint_files._sealed)
    experiment.run_result = before("finish", experiment.run_result)
    if job.get("means") is False:
        experiment.ResumedEpoch = lambda step, means: resumed(
            step, dict.fromkeys(means, (0.0, 0.0))
        )
    if job.get("scale") is False:
        experiment.restore_model = restore_without_scale
    if job.get("watched") is False:
        experiment.SignalWatch = lambda *_: SignalWatch(None)
    if job.get("stall_exit") is False:
        experiment.Experiment._on_stalled_input = lambda *_: None
    if job.get("keys") is False:
        devices._keep_collective_keys = lambda: None
    if job.get("light", True):
        experiment.ViewPictures = lambda *_: keras.callbacks.Callback()
        outcome.curves_figure = outcome.export_encoder = outcome.write_card = lambda *_: None


def live(job: dict) -> None:
    """The life of a forked process."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(job.get("environment", {}))
    if "read" in job:
        read(**job["read"])
        os._exit(0)  # what it read is written, and Python's own end takes a second
    prepare(job)
    sys.argv = ["train", *job["arguments"]]
    command()


def no_runtime() -> None:
    """`RuntimeError` if TensorFlow's runtime has started in this process."""
    if context.context()._context_handle is not None:
        raise RuntimeError("TensorFlow's runtime has started: what is forked now is no new process")


def serve() -> None:
    """Forks until nothing is left to read; see the module."""
    numbers: dict[int, int] = {}
    pending = b""

    def tell(**message) -> None:
        os.write(1, json.dumps(message).encode() + b"\n")

    while True:
        readable, _, _ = select.select([0], [], [], 0.02)
        if readable:
            text = os.read(0, 1 << 16)
            if not text:
                os._exit(0)
            *lines, pending = (pending + text).split(b"\n")
            for line in lines:
                job = json.loads(line)
                no_runtime()
                pid = os.fork()
                if pid == 0:
                    live(job)
                numbers[pid] = job["number"]
                tell(number=job["number"], pid=pid)
        while numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            tell(number=numbers.pop(pid), code=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    serve()
