"""A config becomes a run: devices, images, views, model, callbacks and the run folder. The one
place that knows them all."""

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from byol_tf.config.loading import resolved_json
from byol_tf.config.schedule import Schedule, check_batch, training_schedule
from byol_tf.config.schema import Config
from byol_tf.devices import build_strategy, set_precision, set_seeds
from byol_tf.errors import (
    LOST,
    ConfigError,
    ImagesLost,
    Interrupted,
    RunFolderError,
    RunStopped,
    SavesFailed,
)
from byol_tf.models.ema import TargetUpdate, TauSchedule, tau_schedule
from byol_tf.models.from_config import build_model, compile_model
from byol_tf.models.inference import inference_model
from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.runs.checkpoints import LoadedCheckpoint, list_checkpoints, recover
from byol_tf.runs.data import probe_images, sample_pretrain_images, train_batches
from byol_tf.runs.encoders import start_from, starting_weights
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.lock import RunLock
from byol_tf.runs.process_exit import exit_now
from byol_tf.train.advice import out_of_memory, remedies
from byol_tf.train.callbacks.checkpoint import Checkpoint, ResumedEpoch, model_arrays, restore_model
from byol_tf.train.callbacks.collapse import Collapse, CollapseAlarm
from byol_tf.train.callbacks.csv_logger import History
from byol_tf.train.callbacks.monitors import InputWatch, StepWatch
from byol_tf.train.callbacks.probe import Probe
from byol_tf.train.callbacks.throughput import Throughput
from byol_tf.train.callbacks.view_samples import ViewPictures
from byol_tf.train.data import open_images, save_manifest
from byol_tf.train.finish import (
    run_result,
    supervised_accuracy,
    write_artifacts,
    write_final_report,
)
from byol_tf.train.input_watchdog import StuckInput
from byol_tf.train.multi_worker import Workers
from byol_tf.train.signals import SignalWatch
from byol_tf.train.tensorboard import EventLog
from byol_tf.train.tensorboard_extras import show_config
from pipelines.sources import Source

_DATA_INIT_IMAGES = 256  # enough for each channel's mean and deviation, and little memory


class _Start(NamedTuple):
    """Where a process of a run begins.

    Attributes:
        epoch: whole epochs done.
        step: steps done of the next, at most all of them.
        state: of the callbacks, as a checkpoint has it.
    """

    epoch: int
    step: int
    state: dict[str, Any]


class Experiment:
    """One run of a config, from its last checkpoint if the folder holds one.

    With several machines this object is made and run on each; only the chief reads and writes the
    folder and watches the run.

    Args:
        config: of the run.
        folder: its run folder; None where this process isn't the chief.
        say: prints a line for people.
        workers: the processes of the run, where they had to meet before; None where this one is
            alone.
        tell: says that a signal has stopped the run, where nothing can be raised: its thread waits
            for a disk, so the process ends.

    Attributes:
        model: the compiled model.
        source: its images.

    Raises:
        ConfigError: if the images, or the replicas, don't go with the batch, the machines have
            different configs, or the encoder can't start from `encoder.weights`.
        SourceError: if the images can't be had, or the machines have different ones.
        DeviceError: if there is no such device.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder | None,
        say: Callable[[str], None] = print,
        workers: Workers | None = None,
        tell: Callable[[Interrupted], object] = lambda stopped: None,
    ):
        self.config, self.folder, self.say, self.tell = config, folder, say, tell
        self._checkpoint: Checkpoint | None = None
        set_seeds(config.seed, config.training.deterministic)
        self.workers = (
            Workers(build_strategy(config.devices.strategy, config.devices.tpu))
            if workers is None
            else workers
        )
        self.strategy = self.workers.strategy
        check_batch(config, self.strategy.num_replicas_in_sync, self.workers.count)
        self.source: Source = open_images(
            config, folder, self.workers, StuckInput(self._missing_images), say
        )
        self.schedule: Schedule = training_schedule(config, len(self.source.pretrain))
        set_precision(config.devices.precision)
        with self.strategy.scope():
            self.model = build_model(config, cropped=self.source.pretrain.shape is None)
            compile_model(self.model, config, self.schedule)
        views = config.views
        # Read before the folder is made, and only for a run that hasn't begun: another one goes on
        # without the file.
        begins = (
            folder is not None
            and config.encoder.weights is not None
            and not list_checkpoints(folder.checkpoints)
        )
        self._weights = (
            starting_weights(config.encoder.weights, self.model.encoder, views) if begins else None
        )
        self.inference = inference_model(self.model.encoder, *views.preparation)

    def run(self, command: list[str], verbose: int | str = 1) -> dict | None:
        """Trains what is left to train, then writes figures, the encoder and `result.json`; returns
        its object, on the chief alone.

        Args:
            command: the command line, for the record.
            verbose: as in `keras.Model.fit`, on the chief.

        Raises:
            RunFolderError: if the folder is in use, can't be written, has lost its checkpoints,
                holds no whole one or one of another model, or its run was begun with other images.
            Interrupted: if a signal asked to stop; the chief has saved then.
            RunStopped: if the run can't go on, or went wrong and the config says to stop then: one
                of `errors.py`.
        """
        try:
            return self._run(command, verbose)
        except (Interrupted, RunStopped):
            raise
        except Exception as error:
            if (
                lost := self.source.trouble()
            ) is not None:  # of what came out of tf.data only this is for people
                raise ImagesLost(f"{lost}. Bring them back") from error
            if isinstance(error, tf.errors.ResourceExhaustedError):
                raise out_of_memory(self.config, error) from error
            raise

    def _run(self, command: list[str], verbose: int | str) -> dict | None:
        workers = self.workers
        if not workers.chief:
            # A scheduler may signal all machines at once. One that left first would take the step
            # that the first saves with it. Or it takes one machine away alone: then the first one
            # saves, and all stop.
            with SignalWatch("stopping when the first machine does", workers.heartbeat.say_signal):
                self._fit(self._together(None), [], 0)
            workers.wait()
            return None
        with (
            RunLock(self.folder.root),
            contextlib.closing(EventLog(self.folder.logs, self.say)) as events,
        ):
            start = self._begin(command)
            if workers.count > 1:
                start = self._together(start)
            result = self._train_and_watch(start, events, verbose)
        # a machine that left while the chief still writes would be taken for a lost one
        workers.wait()
        return result

    def _begin(self, command: list[str]) -> _Start:
        """Writes what is known before the first step, and sets the model as the newest checkpoint
        has it, or for its first epoch."""
        images = self.source.fingerprint
        try:
            checkpoint = recover(self.folder.checkpoints, self.say, self.folder.trained_epochs())
        except OSError as error:  # it may be whole, so no other one is taken
            raise RunFolderError(
                f"{self.folder.checkpoints}: expected checkpoints that can be read; received "
                f"{error}"
            ) from error
        if checkpoint is not None and checkpoint.state.get("images", images) != images:
            raise RunFolderError(
                f"{self.folder.root}: this run was begun with other images than data.source has "
                "now. Bring those back, or use --fresh"
            )
        if checkpoint is not None:
            self._restore(checkpoint)
        begun = self.folder.config.exists()
        for line in self.folder.begin(
            resolved_json(self.config), command, images, self.source.skipped, checkpoint is not None
        ):
            self.say(f"another version: {line}")
        save_manifest(self.source, self.folder, begun=checkpoint is not None)
        self.source.keep()
        if checkpoint is None:
            if begun:
                self.say("no checkpoint here yet: beginning with the first step")
            self._initialize_from_file()
            self._initialize_from_data()
            return _Start(0, 0, {"rows": [], "seconds": 0.0, "steps": 0})
        within = (
            f", step {checkpoint.step} of {self.schedule.steps_per_epoch} in the next"
            if checkpoint.step
            else ""
        )
        self.say(
            f"going on after epoch {checkpoint.epoch} of {self.config.training.epochs}{within}"
        )
        return _Start(checkpoint.epoch, checkpoint.step, checkpoint.state)

    def _restore(self, checkpoint: LoadedCheckpoint) -> None:
        """Sets the model as a checkpoint has it."""
        try:
            restore_model(self.model, checkpoint.arrays)
        except ValueError as error:
            raise RunFolderError(
                f"{self.folder.checkpoints}: expected those of the model that config.json "
                f"describes; {error}. Use the config and the "
                "version of byol_tf that the run was begun with (environment.json), or --fresh"
            ) from error

    def _together(self, start: _Start | None) -> _Start:
        """What the chief read or made is where all begin, so no other machine has to see its
        folder. The others give None."""
        workers, names = self.workers, [metric.name for metric in self.model.metrics]
        mine = start or _Start(0, 0, {})
        epoch, step = (workers.gathered(number)[0] for number in (mine.epoch, mine.step))
        restore_model(self.model, workers.from_chief(model_arrays(self.model)))
        means = mine.state.get("means") or dict.fromkeys(names, (0.0, 0.0))
        shared = workers.from_chief(
            {"means": np.array([means[name] for name in names], np.float32)}
        )["means"]
        return _Start(
            epoch, step, mine.state | {"means": dict(zip(names, shared.tolist(), strict=True))}
        )

    def _train_and_watch(self, start: _Start, events: EventLog, verbose: int | str) -> dict:
        """The chief's part of a run. Its callbacks must ask nothing of the other processes, which
        wait at the next step."""
        config, folder, state = self.config, self.folder, start.state
        done = {
            name: state[name]
            for name in ("seconds", "steps", "epoch_seconds", "epoch_steps")
            if name in state
        }
        throughput = Throughput(config.training.batch_size, **done)
        history = History(folder.history, events, list(state["rows"]), self.say)
        watchers = self._watchers()
        if not history.rows:
            events.add(0, lambda: show_config(config, folder.root.name))
            self.say(
                "probing the untrained encoder"
                if config.encoder.weights is None
                else "probing the encoder as it starts"
            )
            history.add(
                0,
                {name: value for watcher in watchers for name, value in watcher.measure().items()},
            )
        pictures = ViewPictures(folder.figures / "views.png", events, self.source.pretrain, config)

        def state_now():
            skipped = {"skipped_steps": self.model.skipped_steps}
            return {
                "rows": list(history.rows),
                "images": self.source.fingerprint,
                **skipped,
                **throughput.state,
            }

        saving, run = (
            CheckpointWriter(folder.checkpoints, config.run.keep_checkpoints, self.say),
            config.run,
        )
        try:
            with SignalWatch("saving and stopping after the steps that run now") as signals:
                self.workers.heartbeat.on_signal = signals.ask
                when = (
                    run.checkpoint_every_steps,
                    run.checkpoint_every_minutes,
                    start.step % self.schedule.steps_per_epoch,
                )
                checkpoint = self._checkpoint = Checkpoint(
                    saving, state_now, signals, *when, self._end
                )
                alarm = CollapseAlarm(config, history.rows, self.schedule.steps_per_epoch, self.say)
                at_epoch_ends = [
                    throughput,
                    StepWatch(self.say),
                    *watchers,
                    history,
                    checkpoint,
                    alarm,
                ]
                if start.step == self.schedule.steps_per_epoch:
                    self._end_epoch(start, at_epoch_ends)
                self._fit(
                    start,
                    [
                        pictures,
                        InputWatch(config.training.batch_size, remedies(config), self.say),
                        *at_epoch_ends,
                    ],
                    verbose,
                )
                saving.finish()
                if (
                    signals.received is not None
                ):  # after the last epoch's end, where nobody looked any more
                    raise Interrupted(
                        signals.received, config.training.epochs, 0, not saving.failed
                    )
                saving.check()
        finally:
            saving.wait()
        supervised = supervised_accuracy(config, self.inference, self.source, self.say)
        try:
            history.write()  # the last epoch's may have met a full disk, or the file be gone
            result = run_result(
                config,
                folder,
                self.model,
                self.schedule,
                len(self.source.pretrain),
                throughput,
                history.rows,
                supervised,
            )
            write_artifacts(config, folder, self.inference, history.rows, result)
        except (OSError, tf.errors.OpError, RunFolderError, ConfigError) as error:
            raise SavesFailed(
                "all is learned and saved, but figures, encoder and result couldn't be written: "
                f"{str(error).splitlines()[0]}"
            ) from error
        if config.run.report:
            write_final_report(config, folder, self.inference, self.source, events, self.say)
        return result

    def _end_epoch(self, start: _Start, watchers: list) -> None:
        """What `fit` does at an epoch's end, for a run that was stopped between the epoch's last
        step and that."""
        logs = dict(start.state["logs"])
        for watcher in watchers:
            watcher.set_model(self.model)
            watcher.on_epoch_end(start.epoch, logs)

    def _fit(self, start: _Start, watchers: list, verbose: int | str) -> None:
        """Trains the steps that are left, with this process's part of each batch."""
        config, workers, epoch_steps = self.config, self.workers, self.schedule.steps_per_epoch
        first_step = start.epoch * epoch_steps + start.step
        epoch, step = divmod(first_step, epoch_steps)
        batches = train_batches(
            config, self.source.pretrain, first_step, workers.index, workers.count
        )
        alone = self._checkpoint is not None and workers.count == 1  # others may be in mid-step
        watch = StuckInput(
            self._missing_images, each=self._checkpoint.on_input_stall if alone else None
        )
        updates = [TargetUpdate(self._tau())] if config.objective.target == "ema" else []
        # On another device than before, so many steps in one call might not divide what is left of
        # the epoch.
        self.model.steps_per_execution = math.gcd(self.model.steps_per_execution, step)
        self.model.steps_seen, self.model.skipped_steps = (
            first_step,
            start.state.get("skipped_steps", 0),
        )
        with watch:
            self.model.fit(
                workers.share(watch.around(batches), config.training.batch_size),
                epochs=config.training.epochs,
                initial_epoch=epoch,
                steps_per_epoch=epoch_steps,
                callbacks=[
                    ResumedEpoch(step, start.state.get("means", {})),
                    *updates,
                    *watch.with_epoch_ends(watchers),
                ],
                verbose=verbose,
                shuffle=False,  # the stream is shuffled already; Keras would warn that it can't
            )

    def _missing_images(self, seconds: float) -> None:
        """One alone may wait for its disk; where others wait for this process too, all end, so that
        they can be started again."""
        saving = self._checkpoint is not None and self._checkpoint.writer.awaited
        why = f"has waited {seconds:g} s for {'a checkpoint to be written' if saving else 'images'}"
        if self.workers.count == 1:
            self.say(f"warning: this run {why}. Is its disk still there?")
        else:
            self.workers.heartbeat.end(LOST, why)

    def _end(self, stopped: Interrupted) -> None:
        """Ends the process, and those of the other machines."""
        self.tell(stopped)
        if self.workers.count > 1:
            self.workers.heartbeat.end(stopped.exit_code, f"was stopped by {stopped}")
        exit_now(stopped.exit_code)

    def _tau(self) -> TauSchedule:
        tau = self.config.tau
        return tau_schedule(
            tau.schedule,
            self.schedule.total_steps,
            tau.base,
            tau.resolved_end,
            tau.resolved_drop_at,
        )

    def _initialize_from_file(self) -> None:
        """Sets the encoder's weights from the file that the config names, if it names one."""
        path = self.config.encoder.weights
        if path is None:
            return
        if (
            self._weights is None
        ):  # there were checkpoints when this object was made, and all of them are damaged
            self._weights = starting_weights(path, self.model.encoder, self.config.views)
        start_from(self.model, self._weights)
        self._weights = None
        self.say(f"the encoder starts from {path}")

    def _initialize_from_data(self) -> None:
        """Sets scales and offsets of `data_init` from the first views of the first batch."""
        config = self.config
        if "data_init" in (
            config.encoder.normalization,
            config.projector.normalization,
            config.predictor.normalization,
        ):
            batch = next(iter(train_batches(config, self.source.pretrain)))
            first_view = (
                batch[0] if self.model.views is None else self.model.views[0](batch[0], batch[-1])
            )
            self.model.initialize_from_data(first_view[:_DATA_INIT_IMAGES])
            self.say(f"scales and offsets set from {min(len(first_view), _DATA_INIT_IMAGES)} views")

    def _watchers(self) -> list:
        config, source = self.config, self.source
        sample = sample_pretrain_images(config, source)
        watchers = [Collapse(self.inference, self.model.projector, sample)]
        if source.train is not None and source.test is not None:
            probe, (train, test) = config.probe, probe_images(config, source)
            watchers.append(
                Probe(
                    self.inference,
                    train,
                    test,
                    config.training.epochs,
                    probe.every_epochs,
                    probe.neighbours,
                    probe.temperature,
                )
            )
        return watchers
