"""A config becomes a run: devices, images, views, model, callbacks and the run folder. The one place that knows them all."""

import dataclasses
import hashlib
import json
from collections.abc import Callable

import keras
import tensorflow as tf

from byol_tf.byol import BYOL
from byol_tf.callbacks.checkpoint import Checkpoint, restore_model
from byol_tf.callbacks.collapse import Collapse
from byol_tf.callbacks.history import History
from byol_tf.callbacks.pictures import ViewPictures
from byol_tf.callbacks.probe import Probe
from byol_tf.callbacks.throughput import Throughput
from byol_tf.checkpoints import read_newest
from byol_tf.config import Config
from byol_tf.config_file import resolved_json
from byol_tf.devices import build_strategy, set_precision, set_seeds
from byol_tf.figures import curves_figure
from byol_tf.networks import build_encoder
from byol_tf.networks.inference import inference_model
from byol_tf.optimizers import WarmupSchedule, build_optimizer
from byol_tf.plan import Schedule, schedule_of
from byol_tf.run_folder import RunFolder, write_atomically
from byol_tf.saved_encoder import export_encoder
from byol_tf.target import TargetUpdate, tau_schedule
from pipelines.batches import view_batches
from pipelines.sources import Source, balanced_indices, open_source, subset

_COLLAPSE_IMAGES = 512  # as many as ResNet-18's representation is wide, so that its rank can show
_PROBE_TRAIN_LIMIT, _PROBE_TEST_LIMIT = 50_000, 10_000


def source_options(config: Config) -> dict:
    """What `open_source` and `plan_source` need to know of a config."""
    data = config.data
    return {
        "source": data.source,
        "root": data.root,
        "archive": data.archive,
        "pretrain": data.pretrain,
        "pretrain_images": data.pretrain_images,
        "image_size": data.image_size,
        "cache": data.cache,
        "max_bad_fraction": data.max_bad_fraction,
        "seed": config.seed,
    }


def build_model(config: Config) -> BYOL:
    """The uncompiled model of a config, drawn from its seed."""
    encoder = build_encoder(config.encoder.name, config.views.size, config.encoder.width, config.encoder.stem)
    return BYOL(encoder, config.heads.hidden, config.heads.projection, config.heads.predictor)


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of encoder, projector and predictor, by name."""
    model = build_model(config)
    parts = {config.encoder.name: model.encoder, "projector": model.projector, "predictor": model.predictor}
    return {name: sum(v.shape.num_elements() for v in part.trainable_variables) for name, part in parts.items() if part is not None}


class Experiment:
    """One run of a config, from its last checkpoint if the folder holds one.

    Args:
        config: of the run.
        folder: its run folder.
        say: prints a line for people.

    Attributes:
        model: the compiled model.
        source: its images.
    """

    def __init__(self, config: Config, folder: RunFolder, say: Callable[[str], None] = print):
        self.config, self.folder, self.say = config, folder, say
        set_seeds(config.seed, config.training.deterministic)
        self.source: Source = open_source(**source_options(config), on_progress=self._progress)
        self.schedule: Schedule = schedule_of(config, len(self.source.pretrain))
        self.strategy = build_strategy(config.devices.strategy, config.devices.tpu)
        set_precision(config.devices.precision)
        with self.strategy.scope():
            self.model = self._compiled_model()
        views = config.views
        self.inference = inference_model(self.model.encoder, views.size, views.mean, views.std)

    def run(self, command: list[str], verbose: int | str = 1) -> dict:
        """Trains what is left to train, then writes figures, the encoder and `result.json`; returns its object.

        Args:
            command: the command line, for the record.
            verbose: as in `keras.Model.fit`.
        """
        config, folder = self.config, self.folder
        folder.begin(resolved_json(config), command, self.source.fingerprint, self.source.skipped)
        checkpoint, damaged = read_newest(folder.checkpoints)
        for line in damaged:
            self.say(f"damaged checkpoint, not used: {line}")
        state = {"rows": [], "seconds": 0.0, "steps": 0}
        first_epoch = 0
        if checkpoint is not None:
            restore_model(self.model, checkpoint.arrays)
            first_epoch, state = checkpoint.epoch, checkpoint.state
            self.say(f"going on after epoch {first_epoch} of {config.training.epochs}")
        writer = tf.summary.create_file_writer(str(folder.logs))
        throughput = Throughput(config.training.batch_size, state["seconds"], state["steps"])
        history = History(folder.history, writer, state["rows"])
        watchers = self._watchers()
        if first_epoch == 0:
            with writer.as_default(step=0):
                tf.summary.text("config", f"```\n{resolved_json(config)}\n```")
            self.say("probing the untrained encoder")
            history.add(0, {name: value for watcher in watchers for name, value in watcher.measure().items()})
        pictures = ViewPictures(
            folder.figures / "views.png",
            writer,
            self.source.pretrain,
            (config.views.first, config.views.second),
            config.views.size,
            config.training.batch_size,
            config.seed,
        )

        def state_now():
            return {"rows": history.rows, "seconds": throughput.seconds, "steps": throughput.steps}

        tau = config.tau
        update = TargetUpdate(tau_schedule(tau.schedule, self.schedule.total_steps, tau.base, tau.end, tau.drop_at))
        checkpoints = Checkpoint(folder.checkpoints, state_now, config.run.keep_checkpoints)
        self.model.fit(
            self.batches(first_epoch * self.schedule.steps_per_epoch),
            epochs=config.training.epochs,
            initial_epoch=first_epoch,
            steps_per_epoch=self.schedule.steps_per_epoch,
            callbacks=[update, pictures, throughput, *watchers, history, checkpoints],
            verbose=verbose,
            shuffle=False,  # the stream is shuffled already; Keras would warn that it can't
        )
        writer.close()
        return self._finish(history.rows, throughput)

    def batches(self, first_step: int = 0) -> tf.data.Dataset:
        """The view pairs of the run, from a step on."""
        views = self.config.views
        return view_batches(
            self.source.pretrain,
            (views.first, views.second),
            views.size,
            self.config.training.batch_size,
            self.config.seed,
            views.mean,
            views.std,
            first_step,
        )

    def _compiled_model(self) -> BYOL:
        config, schedule = self.config, self.schedule
        model = build_model(config)
        rates = WarmupSchedule(schedule.peak_rate, schedule.total_steps, schedule.warmup_steps, config.optimizer.schedule)
        optimizer = build_optimizer(config.optimizer.name, rates, config.optimizer.weight_decay, config.optimizer.momentum)
        model.compile(optimizer, jit_compile=False)
        # Built here, so that a checkpoint can be restored and `fit` needn't take a batch of the stream to find the shapes.
        model.optimizer.build(model.trainable_variables)
        return model

    def _watchers(self) -> list:
        config, source = self.config, self.source
        pretrain = subset(source.pretrain, range(min(_COLLAPSE_IMAGES, len(source.pretrain))))
        watchers = [Collapse(self.inference, self.model.projector, pretrain)]
        if source.train is not None and source.test is not None:
            probe = config.probe
            train, test = (
                subset(images, balanced_indices(images.labels, min(wanted or limit, len(images)), config.seed))
                for images, wanted, limit in (
                    (source.train, probe.train_images, _PROBE_TRAIN_LIMIT),
                    (source.test, probe.test_images, _PROBE_TEST_LIMIT),
                )
            )
            watchers.append(Probe(self.inference, train, test, config.training.epochs, probe.every, probe.neighbours, probe.temperature))
        return watchers

    def _finish(self, rows: list[dict], throughput: Throughput) -> dict:
        folder, untrained, last = self.folder, rows[0], rows[-1]
        curves_figure(folder.figures / "curves.png", rows, f"{self.config.name}: {self.config.encoder.name} on {self.config.data.source}")
        export_encoder(self.inference, folder.export, self.config)
        result = {
            "name": self.config.name,
            "run_dir": str(folder.root),
            "export_dir": str(folder.export / "encoder"),
            "epochs": last["epoch"],
            "steps": int(self.model.optimizer.iterations.numpy()),
            "seconds": round(throughput.seconds, 3),
            "images_per_second": round(throughput.images_per_second, 3),
            "loss": last["loss"],
            "probe_accuracy": last.get("probe_accuracy"),
            "untrained_probe_accuracy": untrained.get("probe_accuracy"),
            "knn_accuracy": last.get("knn_accuracy"),
            "untrained_knn_accuracy": untrained.get("knn_accuracy"),
            "projection_std": last["projection_std"],
            "projection_cosine": last["projection_cosine"],
            "effective_rank": last["effective_rank"],
            "pretrain_images": len(self.source.pretrain),
            "schedule": dataclasses.asdict(self.schedule),
            "weights_digest": weights_digest(self.model),
        }
        write_atomically(folder.result, json.dumps(result, indent=2) + "\n")
        return result

    def _progress(self, what: str, done: int, total: int) -> None:
        if done == total:
            self.say(f"{what}: {total:,} images")


def weights_digest(model: BYOL) -> str:
    """SHA-256 in hexadecimal over the online network's weights, moving statistics included, in order."""
    digest = hashlib.sha256()
    for part in (model.encoder, model.projector, model.predictor):
        for array in part.get_weights() if part is not None else ():
            digest.update(array.tobytes())
    return digest.hexdigest()


def restored_inference(config: Config, folder: RunFolder) -> keras.Model:
    """The inference model of a run's newest checkpoint, on the CPU in float32, without opening its images.

    Raises `FileNotFoundError` if the run has no whole checkpoint.
    """
    checkpoint, _ = read_newest(folder.checkpoints)
    if checkpoint is None:
        raise FileNotFoundError(f"{folder.checkpoints}: expected a checkpoint; found none that is whole. Train first")
    set_precision("float32")
    encoder = build_encoder(config.encoder.name, config.views.size, config.encoder.width, config.encoder.stem)
    prefix = "online/encoder/"
    arrays = [array for name, array in sorted(checkpoint.arrays.items()) if name.startswith(prefix)]
    for variable, array in zip(encoder.variables, arrays, strict=True):
        variable.assign(array)
    return inference_model(encoder, config.views.size, config.views.mean, config.views.std)
