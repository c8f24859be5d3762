"""The process that reliability tests run: the real command, a record of its steps, and faults.

`python -m tests.reliability.child` imports all that a run needs, then forks a process for each line
of JSON that it reads: seconds of import are paid once. TensorFlow's runtime hasn't started when it
forks (`check_no_runtime`), so a fork is what a new process is after its imports. It writes
`{"pid": ..., "number": ...}` when a process has started and `{"number": ..., "code": ...}` when one
has ended.

A line's keys: `number`; `output`, a file; `environment`, variables to add; and either `read`, the
arguments of `reader.py`, or

* `arguments` of `byol_tf.train`;
* `record`, a file that gets a line for each step;
* `faults`, each `{"moment", "step", "kind"}`: see `reach`;
* `patient`: a step ends when the checkpoint before it is written, so that there is one after each;
* `patience`, seconds after which stalled input is logged;
* `light`, on by default: no figures and no export, which change nothing that is learned;
* `shift`, `means`, `scale`, `watched`, `stall_exit` and `keys`, which remove a protection: another
  batch than the next one, no running means, the loss scale of a first step, no signal watch while
  steps run, no exit when the input stalls, new collective keys at each step.

The loss scale of float16 doubles after 3 steps here, not after 2,000, so that it has changed when a
run is interrupted.
"""

import functools
import hashlib
import json
import os
import select
import signal
import threading
import time
from pathlib import Path

from byol_tf.devices import prepare_environment

prepare_environment()

import keras
import tensorflow as tf
from tensorflow.python.eager import context

from byol_tf import compat
from byol_tf.command_line import run_command
from byol_tf.models import byol
from byol_tf.runs import checkpoint_format
from byol_tf.train import data, experiment, finish, start
from byol_tf.train.__main__ import main
from byol_tf.train.callbacks import probe
from byol_tf.train.callbacks.checkpoint import model_arrays
from byol_tf.train.signals import SignalWatch
from tests.reliability.reader import read

NEVER = threading.Event()
completed = {"steps": 0}
faults: list[dict] = []
slowness, reading = {"seconds": 0.0}, threading.Lock()


def reach(moment: str, steps: int | None = None) -> None:
    """Causes the faults of a moment, each once, as soon as its `step` steps are completed.

    `steps`: of the checkpoint that is saved, as the thread that writes it is behind the training
    thread; by default the completed ones.

    A fault's `kind` is a signal's name, sent to this process; `twice`, which sends SIGTERM two
    times; `raise`; `stuck`, which blocks this thread for ever; or `slow`, from which on every batch
    takes 0.3 s. Its `mark` is a file that is made then.
    """
    if steps is None:
        steps = completed["steps"]
    for fault in [
        fault for fault in faults if fault["moment"] == moment and fault["step"] <= steps
    ]:
        faults.remove(fault)
        kind = fault["kind"]
        if "mark" in fault:
            Path(fault["mark"]).touch()
        if kind == "raise":
            raise RuntimeError("wrong on purpose")
        if kind == "stuck":
            NEVER.wait()
        elif kind == "slow":
            slowness["seconds"] = 0.3
        elif kind == "twice":
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.1)
        else:
            os.kill(os.getpid(), getattr(signal, kind))
            time.sleep(0.05)  # the thread that records signals sees it here, and not later


def before(moment: str, real):
    """Returns the real function, with the faults of a moment before it."""

    @functools.wraps(real)
    def wrapped(*args, **kwargs):
        reach(moment)
        return real(*args, **kwargs)

    return wrapped


class Record(keras.callbacks.Callback):
    """Writes a line for each step: its number, the epoch's means so far, and its images' digest."""

    def __init__(self, path: str | None, patient: bool):
        super().__init__()
        self.patient, self.seen = patient, []
        # Kept open, as a run may be out of file descriptors on purpose.
        self.file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        step = completed["steps"] + 1
        digest = hashlib.sha256(b"".join(params.tobytes() for params in self.seen)).hexdigest()[:16]
        line = {
            "step": step,
            "epoch": self.epoch,
            "loss": float(logs["loss"]).hex(),
            "spread": float(logs["projection_std"]).hex(),
        }
        self.write(line | {"images": digest, "time": time.time()})
        self.seen.clear()
        completed["steps"] = step
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
        self.write({"step": completed["steps"], "end": digest})

    def write(self, line: dict) -> None:
        if self.file is not None:
            os.write(self.file, json.dumps(line).encode() + b"\n")


def add_record_and_faults(job: dict) -> None:
    """Wraps the real functions with the record and the faults of a job."""
    faults.extend(job.get("faults", []))
    record = Record(job.get("record"), job.get("patient", False))
    real_fit, real_step, real_batches = (
        experiment.Experiment._fit,
        byol.BYOL.train_step,
        experiment.train_batches,
    )

    def fit(self, start, callbacks, rows):
        completed["per_epoch"] = self.schedule.steps_per_epoch
        completed["steps"] = start.epoch * completed["per_epoch"] + start.step
        reach("before the first step")
        return real_fit(self, start, [record, *callbacks], rows)

    def train_step(self, batch):
        reach("tracing")

        def note(params):
            record.seen.append(params)
            reach("inside the step")
            return params

        with tf.control_dependencies([tf.numpy_function(note, [batch[-1]], batch[-1].dtype)]):
            return real_step(self, batch)

    def train_batches(config, images, first_step=0, *rest):
        real_batch = images.batch

        def batch(indices):
            reach("data")
            with reading:  # else many slow reads at once would be as fast as before
                time.sleep(slowness["seconds"])
            return real_batch(indices)

        images.batch = batch
        return real_batches(config, images, first_step + job.get("shift", 0), *rest)

    real_digest = checkpoint_format._with_own_digest

    def digest(manifest):
        if "per_epoch" in completed:  # else a checkpoint is read, before the first step
            reach("save", manifest["epoch"] * completed["per_epoch"] + manifest["step"])
        return real_digest(manifest)

    experiment.Experiment._fit, byol.BYOL.train_step, experiment.train_batches = (
        fit,
        train_step,
        train_batches,
    )
    data.open_source = before("start", data.open_source)
    start.recover = before("reading", start.recover)
    probe.Probe.measure = before("probe", probe.Probe.measure)
    checkpoint_format._with_own_digest = digest
    experiment.run_result = before("finish", experiment.run_result)


def configure(job: dict) -> None:
    """Sets a job's waiting times and a short loss scale, and skips what isn't about learning."""
    if "patience" in job:
        experiment.InputWatchdog = functools.partial(
            experiment.InputWatchdog, patience=job["patience"]
        )
    real_compile = experiment.compile_model

    def compile_model(model, *rest):
        real_compile(model, *rest)
        if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
            model.optimizer.dynamic_growth_steps = 3

    experiment.compile_model = compile_model
    if job.get("light", True):
        experiment.ViewPictures = lambda *_: keras.callbacks.Callback()
        finish.curves_figure = finish.export_encoder = finish.write_card = lambda *_: None


def remove_protections(job: dict) -> None:
    """Removes the protections that a job names, for the control of a test."""
    resumed_epoch, restore_model = experiment.ResumedEpoch, start.restore_model

    def restore_without_scale(model, arrays):
        first = {
            name: array for name, array in model_arrays(model).items() if "dynamic_scale" in name
        }
        restore_model(model, arrays | first)

    if job.get("means") is False:
        experiment.ResumedEpoch = lambda step, means: resumed_epoch(
            step, dict.fromkeys(means, (0.0, 0.0))
        )
    if job.get("scale") is False:
        start.restore_model = restore_without_scale
    if job.get("watched") is False:
        experiment.SignalWatch = lambda *_: SignalWatch(None)
    if job.get("stall_exit") is False:
        experiment.Experiment._while_stalled = lambda *_: None
    if job.get("keys") is False:
        compat.keep_collective_keys = lambda: None


def run_job(job: dict) -> None:
    """Runs a job in a forked process."""
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
    add_record_and_faults(job)
    configure(job)
    remove_protections(job)
    run_command(main, job["arguments"])


def check_no_runtime() -> None:
    """Raises RuntimeError if TensorFlow's runtime has started in this process."""
    if context.context()._context_handle is not None:
        raise RuntimeError(
            "TensorFlow's runtime has started: a fork would not be like a new process"
        )


def serve() -> None:
    """Forks a process for each line until the input ends; see the module."""
    numbers: dict[int, int] = {}
    pending = b""

    def report(**message) -> None:
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
                check_no_runtime()
                pid = os.fork()
                if pid == 0:
                    run_job(job)
                numbers[pid] = job["number"]
                report(number=job["number"], pid=pid)
        while numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            report(number=numbers.pop(pid), code=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    serve()
