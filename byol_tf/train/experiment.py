"""Runs the experiment that a config describes: images, model, callbacks and run folder."""

import contextlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from byol_tf.config.loading import absolute_paths, given_config, resolved_json
from byol_tf.config.schedule import Schedule, check_batch, training_schedule
from byol_tf.config.schema import Config
from byol_tf.devices import build_strategy, run_precision, set_seeds
from byol_tf.errors import (
    LOST,
    ConfigError,
    ImagesLost,
    Interrupted,
    RunFolderError,
    RunStopped,
    SavesFailed,
)
from byol_tf.logs import activity
from byol_tf.models.byol import BYOL
from byol_tf.models.construction import dtype_policy
from byol_tf.models.ema import TargetUpdate
from byol_tf.models.from_config import (
    GivenEncoder,
    build_model,
    compile_model,
    config_inference_model,
    tau_schedule,
)
from byol_tf.native_output import move_native_log
from byol_tf.runs.best_epoch import check_metric, compares_epochs, scores
from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.runs.checkpoints import list_checkpoints, read_newest
from byol_tf.runs.data import check_view_engine, probe_images, sample_pretrain_images, train_batches
from byol_tf.runs.encoders import save_architecture
from byol_tf.runs.files import append_to
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.folder_choice import check_same_run
from byol_tf.runs.lock import RunLock
from byol_tf.runs.process_exit import exit_now
from byol_tf.runs.starting_weights import Weights, starting_weights
from byol_tf.train.callbacks.checkpoint import Checkpoint, ResumedEpoch, restore_model
from byol_tf.train.callbacks.collapse import Collapse, CollapseAlarm
from byol_tf.train.callbacks.early_stopping import EarlyStopping
from byol_tf.train.callbacks.first_pass import FirstPass
from byol_tf.train.callbacks.history import History
from byol_tf.train.callbacks.monitors import DataWait, StepMonitor
from byol_tf.train.callbacks.probe import Probe
from byol_tf.train.callbacks.progress import Progress
from byol_tf.train.callbacks.throughput import Throughput
from byol_tf.train.callbacks.view_samples import ViewPictures
from byol_tf.train.data import CopiesSearch, open_images
from byol_tf.train.dry_run import measure_lines, remedies
from byol_tf.train.finish import (
    run_result,
    supervised_accuracy,
    write_artifacts,
    write_final_report,
)
from byol_tf.train.input_watchdog import InputWatchdog
from byol_tf.train.multi_worker import Workers
from byol_tf.train.normalization import check_normalization, measure_channels, offer
from byol_tf.train.out_of_memory import out_of_memory
from byol_tf.train.plan import Plan, make_plan
from byol_tf.train.signals import SignalWatch
from byol_tf.train.start import ResumePoint, broadcast_state, initialize_or_resume
from byol_tf.train.teacher import Teacher, check_teacher, load_teacher
from byol_tf.train.tensorboard import EventLog, show_config
from byol_tf.train.trackers import Log, check_trackers, open_trackers
from pipelines.sources import GivenImages, Source, Unreachable

logger = logging.getLogger(__name__)


class Experiment:
    """One run of a config, resumed from its newest checkpoint if its folder has one.

    Making the object costs nothing: no image is opened, no folder made, no device used. `plan` and
    `measure` write nothing either; `run` trains.

    In a multi-worker run each worker makes the object and runs it; only the chief reads and writes
    the folder and reports.

    Example:
        >>> from byol_tf.config.loading import load_config
        >>> experiment = Experiment(load_config("demo", ["training.epochs=1"]), "runs/short")
        >>> print(experiment.plan())
        >>> result = experiment.run()

    Resuming a run that had an encoder, images or callbacks from Python takes the same ones again.

    Args:
        config: of the run.
        run_dir: the run folder; it needn't exist.
        workers: the workers of a multi-worker run, which had to be connected before; None for a run
            in this process alone.
        on_interrupt: called before the process is ended after a signal while its main thread waits
            for a disk and can't raise `Interrupted`.
        encoder: in place of `config.encoder`: a built model, of which the run trains a copy; or a
            function that is called with `image_size` and returns one. See docs/encoders.md.
        images: in place of `config.data`: uint8 `[N, H, W, 3]`, or what `data.channels` and
            `data.depth` say; or "unlabelled", "train" and "test" -> such an array, with integer
            labels as a pair `(images, labels)`.
        callbacks: those of one's own, which run on the chief, at an epoch's end before its
            checkpoint is saved. Their logs have what byol_tf measured; their own state isn't saved.

    Attributes:
        config: with `encoder.name` "keras.Model" for an encoder, and `data.source` "arrays" for
            images from Python.
        folder: the run folder.
        workers: the workers of the run, from `prepare` on.
        source: the images, from `prepare` on.
        precision: of the networks' computation, from `prepare` on.
        schedule: steps and learning rate, from `prepare` on.
        model: the compiled model, from `prepare` on; after `run` that of the exported epoch.
        inference: the model from uint8 or uint16 images to representations, around the online
            encoder, from `prepare` on.
    """

    workers: Workers
    source: Source
    precision: str
    schedule: Schedule
    model: BYOL
    inference: keras.Model

    def __init__(
        self,
        config: Config,
        run_dir: str | os.PathLike[str],
        workers: Workers | None = None,
        on_interrupt: Callable[[Interrupted], object] = lambda stopped: None,
        *,
        encoder: GivenEncoder | None = None,
        images: GivenImages | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ):
        self.config = given_config(config, encoder is not None, images is not None)
        self.folder, self.on_interrupt = RunFolder(Path(run_dir)), on_interrupt
        self._encoder, self._images, self._callbacks = encoder, images, list(callbacks)
        self._connected_workers = workers
        self._plan: Plan | None = None
        self._prepared = False
        self._weights: Weights | None = None
        self._teacher: Teacher | None = None
        self._checkpoint: Checkpoint | None = None

    def plan(self) -> Plan:
        """Returns what the run would do, without opening an image or writing anything.

        Raises:
            ConfigError: if the images don't make a batch.
            SourceError: if the images can't be found.
        """
        if self._plan is None:
            self._plan = make_plan(self.config, self.folder, self._encoder, self._images)
        return self._plan

    def measure(self) -> list[tuple[str, str]]:
        """Returns lines (subject, text) on the speed of input and training step on this machine.

        Takes some seconds and writes nothing.

        Raises:
            ConfigError: if the encoder can't start from `encoder.weights`.
            SourceError: if the images can't be opened.
        """
        config, lines = self.config, []
        if not config.views.is_normalized:
            statistics = measure_channels(config, self._images)
            config = config.normalized(*statistics)
            lines = [("normalising", offer(*statistics))]
        schedule = self.plan().schedule
        return lines + measure_lines(config, self.folder, schedule, self._encoder, self._images)

    def prepare(self) -> None:
        """Opens the images and builds devices, model and optimizer; the run folder isn't touched.

        `run` calls it; a second call does nothing.

        Raises:
            ConfigError: if the images or replicas don't fit the batch, the workers have different
                configs, the engine of the views or a tracker isn't installed, the encoder can't
                start from `encoder.weights`, or `objective.teacher` can't be used.
            SourceError: if the images can't be opened, or differ between workers.
            DeviceError: if there is no such device.
        """
        if self._prepared:
            return
        config = self.config
        check_view_engine(config)
        check_trackers(config)
        self.workers = self._connected_workers or Workers(
            build_strategy(config.devices.strategy, config.devices.tpu)
        )
        strategy = self.workers.strategy
        check_batch(config, strategy.num_replicas_in_sync, self.workers.count)
        self.source = open_images(config, self.folder, self.workers, self._watchdog(), self._images)
        self.schedule = training_schedule(config, len(self.source.pretrain))
        self.precision = self._common_precision()
        with strategy.scope(), dtype_policy(self.precision):
            self._teacher = load_teacher(config)
            # Loading draws random numbers, and a report builds the network from the seed alone.
            set_seeds(config.seed, config.training.deterministic)
            self.model = build_model(
                config,
                cropped=self.source.pretrain.shape is None,
                given=self._encoder,
                teacher=None if self._teacher is None else self._teacher.model,
            )
            compile_model(self.model, config, self.schedule)
        if self._teacher is not None:
            check_teacher(self._teacher, config, self.source, self.workers)
        if compares_epochs(config):
            check_metric(config, self.source.train is not None)
        if (
            self.workers.chief
            and config.encoder.weights is not None
            and not list_checkpoints(self.folder.checkpoints)
        ):  # now, before the folder is made; a resumed run doesn't need the file
            self._weights = starting_weights(config.encoder.weights, self.model.encoder, config)
        self.inference = config_inference_model(self.model.encoder, config)
        self._prepared = True

    def _common_precision(self) -> str:
        """Returns the precision of all workers; for `auto` bfloat16 only where each has it."""
        devices = self.config.devices
        precision = run_precision(devices.precision, devices.strategy)
        if devices.precision == "auto" and self.workers.find_mismatches(precision):
            return "float32"
        return precision

    def run(self, command: Sequence[str] = (), verbose: bool = True) -> dict[str, Any] | None:
        """Trains the remaining steps, then writes figures, the encoder and `result.json`.

        Args:
            command: the command line, kept in `environment.json`.
            verbose: whether the chief prints a line for each epoch, and in a terminal a bar.

        Returns:
            The content of `result.json` on the chief; None on other workers.

        Raises:
            ConfigError, SourceError, DeviceError: as `prepare`; or if `views.mean` is missing.
            RunFolderError: if the folder is in use or can't be written, its run has another config
                or used other images, has lost its checkpoints, or has no valid one or one of
                another model.
            Interrupted: if a signal asked to stop; the chief has saved.
            RunStopped: if the run can't continue, or met what the config says to stop at: one of
                the subclasses in `errors.py`.
        """
        check_normalization(self.config, self._images)
        chief = self._connected_workers is None or self._connected_workers.chief
        # Locked before the images are read, which may take an hour: no other process enters.
        with RunLock(self.folder.root) if chief else contextlib.nullcontext() as lock:
            if lock is not None:
                check_same_run(self.folder, json.loads(resolved_json(absolute_paths(self.config))))
            self.prepare()
            result = None
            with self._named_failures():
                if lock is not None:
                    result = self._run_chief(lock, list(command), verbose)
                else:
                    self._run_worker()
        # Other workers would take a chief that is still writing for a lost one.
        self.workers.barrier()
        return result

    @contextlib.contextmanager
    def _named_failures(self) -> Iterator[None]:
        """Raises `ImagesLost` or `OutOfMemory` where a failure of TensorFlow hides one of them."""
        try:
            yield
        except (Interrupted, RunStopped):
            raise
        except Exception as error:
            # tf.data hides the original exception of an unreadable image.
            if (lost := self.source.failure()) is not None:
                reachable = not isinstance(lost, Unreachable)
                remedy = ". Bring them back, or resume with a larger fraction" if reachable else ""
                raise ImagesLost(f"{lost}{remedy}") from error
            if isinstance(error, tf.errors.ResourceExhaustedError):
                raise out_of_memory(self.config, error) from error
            raise

    def _run_chief(self, lock: RunLock, command: list[str], verbose: bool) -> dict[str, Any]:
        lock.check_owner()  # reading the images may have taken an hour
        with (
            contextlib.closing(EventLog(self.folder.logs)) as events,
            open_trackers(self.config, self.folder) as log,
        ):
            start = initialize_or_resume(
                self.config,
                self.folder,
                self.model,
                self.source,
                self.schedule,
                self._weights,
                command,
                self._teacher,
                self.precision,
            )
            save_architecture(self.config, self.folder, self.model.encoder)
            move_native_log(self.folder.logs, append_to)
            self._weights = None  # not needed again, and as large as the encoder
            copies = CopiesSearch(self.source)
            if self.workers.count > 1:
                start = broadcast_state(self.model, self.workers, start)
            history, throughput = self._train(start, events, log, verbose, lock)
            lock.check_owner()
            copies.finish()
            return self._finish(history, throughput, events)

    def _run_worker(self) -> None:
        # A scheduler may signal all workers at once: one that left first would lose the step that
        # the chief saves. Or it signals one alone: then the chief saves, and all stop.
        with SignalWatch("stopping when the chief does", self.workers.channel.send_signal):
            start = broadcast_state(self.model, self.workers, None)
            self._fit(start, self._learning_callbacks(start), [])

    def _train(
        self, start: ResumePoint, events: EventLog, log: Log, verbose: bool, lock: RunLock
    ) -> tuple[History, Throughput]:
        """Trains with all callbacks of the chief, saving checkpoints.

        None of the callbacks may ask anything of other workers, which wait at their next step.
        """
        config, folder, steps_per_epoch = self.config, self.folder, self.schedule.steps_per_epoch
        throughput = Throughput(config.training.batch_size, start.state)
        compared = config.monitor.metric if compares_epochs(config) else None
        history = History(folder.history, events, list(start.state["rows"]), log, compared)
        measures = self._measures()
        if not history.rows:
            self._measure_untrained(history, measures, events)
        writer = CheckpointWriter(
            folder.checkpoints,
            config.run.keep_checkpoints,
            60 * config.run.stall_timeout_minutes,
            lock.check_owner,
            config.monitor.metric,
        )

        def state() -> dict[str, Any]:
            return {
                "rows": list(history.rows),
                "images": self.source.fingerprint,
                "teacher": self._teacher and self._teacher.digest,
                "skipped_steps": self.model.skipped_steps,
                **throughput.state,
            }

        try:
            with SignalWatch("saving and stopping after the current steps") as signals:
                self.workers.channel.on_signal = signals.receive
                checkpoint = self._checkpoint = Checkpoint(
                    writer,
                    state,
                    signals,
                    every_steps=config.run.checkpoint_every_steps,
                    every_minutes=config.run.checkpoint_every_minutes,
                    first_step=start.step % steps_per_epoch,
                    end=self._exit_interrupted,
                )
                # In the order in which they run. Each may read what those before it put into the
                # logs, and a checkpoint holds the epoch's row of the history.
                epoch_end_callbacks = [
                    keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: lock.check_owner()),
                    FirstPass(self.source, config, folder),
                    throughput,
                    StepMonitor(),
                    *measures,
                    *self._callbacks,
                    history,
                    checkpoint,
                    *([Progress(config.training.epochs, self.schedule, history.rows)] * verbose),
                    CollapseAlarm(config, history.rows, steps_per_epoch),
                ]
                callbacks = [
                    *self._learning_callbacks(start),
                    ViewPictures(
                        folder.figures / "views.png", events, self.source.pretrain, config
                    ),
                    *epoch_end_callbacks,
                ]
                if start.step == steps_per_epoch:  # stopped before the epoch's end was saved
                    self._end_epoch(start, epoch_end_callbacks)
                self._fit(start, callbacks, history.rows)
                writer.finish()
                if signals.received is not None:  # after the last epoch's end
                    raise Interrupted(
                        signals.received, int(history.rows[-1]["epoch"]), 0, not writer.failed
                    )
                writer.check()
        finally:
            writer.wait()
        return history, throughput

    def _learning_callbacks(self, start: ResumePoint) -> list[keras.callbacks.Callback]:
        """Returns the callbacks that every worker needs; all others only observe."""
        resumed = ResumedEpoch(
            start.step % self.schedule.steps_per_epoch, start.state.get("means", {})
        )
        if self.config.objective.target != "ema":
            return [resumed]
        return [resumed, TargetUpdate(tau_schedule(self.config, self.schedule.total_steps))]

    def _measures(self) -> list[Collapse | Probe]:
        """Returns the callbacks that measure the frozen encoder, before training too."""
        config, source = self.config, self.source
        sample = sample_pretrain_images(config, source)
        measures: list[Collapse | Probe] = [
            Collapse(self.inference, self.model.projector, sample),
        ]
        images = probe_images(config, source)
        if images is not None:
            measures.append(
                Probe(
                    self.inference,
                    *images,
                    config.training.epochs,
                    config.probe.every_epochs,
                    config.probe.neighbours,
                    config.probe.temperature,
                )
            )
        return measures

    def _measure_untrained(
        self, history: History, measures: list[Collapse | Probe], events: EventLog
    ) -> None:
        """Adds row 0 of the history, and the config to TensorBoard."""
        events.add(0, lambda: show_config(self.config, self.folder.root.name))
        pretrained = self.config.encoder.weights is not None
        values: dict[str, float] = {}
        encoder = "starting" if pretrained else "untrained"
        with activity(f"evaluating the {encoder} encoder", logger):
            for callback in measures:
                values |= callback.measure()
        history.add(0, values)

    def _end_epoch(self, start: ResumePoint, callbacks: list[keras.callbacks.Callback]) -> None:
        """Does what `fit` does at an epoch's end, for a run that was stopped just before it."""
        logs = dict(start.state["logs"])
        params = {"epochs": self.config.training.epochs, "steps": self.schedule.steps_per_epoch}
        for callback in callbacks:
            callback.set_model(self.model)
            callback.set_params(params)
            if callback in self._callbacks:  # they may open there what they write at an epoch's end
                callback.on_train_begin()
            callback.on_epoch_end(start.epoch, logs)
            if callback in self._callbacks:
                callback.on_train_end()

    def _fit(
        self,
        start: ResumePoint,
        callbacks: list[keras.callbacks.Callback],
        rows: list[dict[str, float]],
    ) -> None:
        """Trains the remaining steps on this worker's rows of each batch.

        Args:
            start: completed epochs and steps.
            callbacks: of this worker.
            rows: of the run's history, on the chief.
        """
        config, workers, model = self.config, self.workers, self.model
        early_stopping = EarlyStopping(config, rows, workers)
        if early_stopping.stops():  # it was stopped before it had written its results
            return
        steps_per_epoch = self.schedule.steps_per_epoch
        first_step = start.epoch * steps_per_epoch + start.step
        epoch, step = divmod(first_step, steps_per_epoch)
        # The run may have been started on a device with another number of steps per execution.
        model.steps_per_execution = math.gcd(model.steps_per_execution, step)
        model.steps_seen = first_step
        model.skipped_steps = start.state.get("skipped_steps", 0)
        batches = train_batches(
            config, self.source.pretrain, first_step, workers.index, workers.count
        )
        watchdog = self._watchdog()
        data_wait = DataWait(watchdog, config.training.batch_size, remedies(config))
        with watchdog:
            model.fit(
                workers.distribute(watchdog.watch(batches), config.training.batch_size),
                epochs=config.training.epochs,
                initial_epoch=epoch,
                steps_per_epoch=steps_per_epoch,
                callbacks=[data_wait, *watchdog.with_epoch_ends([*callbacks, early_stopping])],
                verbose=0,
                shuffle=False,  # the batches are shuffled already
            )

    def _finish(self, history: History, throughput: Throughput, events: EventLog) -> dict[str, Any]:
        """Writes what a finished run leaves; returns its result."""
        config, folder = self.config, self.folder
        steps = int(self.model.optimizer.iterations.numpy())
        exported = self._restore_exported(history.rows)
        supervised = supervised_accuracy(config, self.inference, self.source)
        try:
            history.write()  # the last epoch may have met a full disk
            result = run_result(
                config,
                folder,
                self.model,
                self.schedule,
                self.source,
                throughput,
                history.rows,
                steps,
                exported,
                supervised,
            )
            write_artifacts(config, folder, self.inference, history.rows, result)
        except (OSError, tf.errors.OpError, RunFolderError, ConfigError) as error:
            raise SavesFailed(
                "training is complete and its last checkpoint saved, but figures, encoder and "
                f"result couldn't be written: {str(error).splitlines()[0]}"
            ) from error
        if config.run.report:
            write_final_report(config, folder, self.inference, self.source, events)
        return result

    def _restore_exported(self, rows: list[dict[str, float]]) -> int:
        """Restores the model of the epoch that `run.export` names; returns that epoch."""
        last = int(rows[-1]["epoch"])
        if self.config.run.export == "last":
            return last
        checkpoint, damaged = read_newest(
            self.folder.checkpoints, scores(rows, self.config.monitor.metric)
        )
        for damage in damaged:
            logger.warning("damaged checkpoint, not used: %s", damage)
        if checkpoint is None or checkpoint.epoch == last:
            return last
        restore_model(self.model, checkpoint.arrays)
        return checkpoint.epoch

    def _watchdog(self) -> InputWatchdog:
        return InputWatchdog(self._warn_of_stall, while_waiting=self._while_stalled)

    def _stall(self, seconds: float) -> str:
        saving = self._checkpoint is not None and self._checkpoint.writer.awaited
        return (
            f"has waited {seconds:g} s for {'a checkpoint to be written' if saving else 'images'}"
        )

    def _warn_of_stall(self, seconds: float) -> None:
        logger.warning("this run %s. Is its disk still there?", self._stall(seconds))

    def _while_stalled(self, seconds: float, still_waiting: Callable[[], bool]) -> None:
        """Ends a stalled multi-worker run, so that the scheduler restarts it.

        A single worker waits on; if a signal comes, it saves and ends. Where others are, they may
        be within a step, and their signal comes to the chief.
        """
        checkpoint = self._checkpoint
        if self.workers.count == 1:
            if checkpoint is not None:
                checkpoint.on_input_stall(seconds, still_waiting)
        elif seconds >= 60 * self.config.run.stall_timeout_minutes and not (
            # A slow save takes no processor time, so that the watchdog sees no progress.
            checkpoint is not None and checkpoint.writer.awaited and not checkpoint.writer.hangs
        ):
            self.workers.channel.abort(LOST, self._stall(seconds))

    def _exit_interrupted(self, stopped: Interrupted) -> None:
        """Ends this process and other workers after a signal, whatever their threads wait for."""
        self.on_interrupt(stopped)
        if self.workers.count > 1:
            self.workers.channel.abort(stopped.exit_code, f"was stopped by {stopped}")
        exit_now(stopped.exit_code)
