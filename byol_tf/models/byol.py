"""BYOL as a Keras model (Grill et al. 2020; deepmind-research `byol/byol_experiment.py`)."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import keras
import tensorflow as tf

from byol_tf.models import nonfinite as guard
from byol_tf.models.losses import Objective, mean_cosine, spread
from byol_tf.models.networks import batch_independent, initialize_from_data, mlp_head
from byol_tf.models.networks import rematerialize as rematerialized
from byol_tf.models.optimizers import gradients_for_all
from byol_tf.models.trainer import CompiledLoop


class BYOL(CompiledLoop):
    """Bootstrap your own latent: the online network learns to predict the target network's
    projection of another view of the same image.

    With other settings it is SimSiam, SimCLR or what lies between: see `Objective` and `target`.
    Calling the model gives representations; `fit` expects batches `(view1, view2)`, each `[N, H, W,
    3]` floats as the encoder takes them (four views for an objective with two draws), and the
    `TargetUpdate` callback, without which the target network never moves.

    Args:
        encoder: a built `keras.Model` from images to representations `[N, d]`; it is trained in
            place. A subclassed one needs what Keras needs to copy it: constructor arguments in
            `get_config()`.
        projector: a built `keras.Model` from representations to projections `[N, p]`. Default: the
            BYOL paper's, 4096 to 256.
        predictor: one from projections to predictions `[N, p]`; None to compare projections
            directly. Default: the BYOL paper's.
        objective: what is compared. Default: BYOL's loss.
        target: where the predicted projections come from: `ema`, a network of its own that follows
            the online one; `online`, the online network with its gradient stopped (SimSiam);
            `online_with_gradient` (SimCLR).
        train_predictor: False leaves the predictor as it was drawn (SimSiam report, section IV.B).
        gradient_accumulation_steps: a replica's batch is taken in so many parts one after the
            other, to save memory, with one optimizer step and one target update at the end. Batch
            statistics and negatives are then those of a part.
        views: layers that make each view inside the step, such as
            `pipelines.views.fused.FusedViews`: `view(images, ids)`. `fit` then expects batches
            `(images, ids)`, as `pipelines.batches.image_batches` gives them, or `(images1, images2,
            ids)` with each view's own, as `crop_batches` does. Default: batches are views already.

        rematerialize: the backward pass computes most of the encoder's activations again instead of
            keeping them: see `networks.rematerialize.rematerialize`.
        on_nonfinite: what `fit` does when a step's views, loss, gradients or batch statistics
            aren't finite: `stop`, or `skip`. Either way that step changes nothing: neither weights
            nor optimizer, statistics or target. See `loop.CompiledLoop`.

    Raises:
        ValueError: if a part isn't built, gives another shape than the next one takes, can't be
            copied, or `target` or `on_nonfinite` is another word.
    """

    def __init__(
        self,
        encoder: keras.Model,
        projector: keras.Model | Literal["paper"] = "paper",
        predictor: keras.Model | Literal["paper"] | None = "paper",
        objective: Objective | None = None,
        target: Literal["ema", "online", "online_with_gradient"] = "ema",
        train_predictor: bool = True,
        gradient_accumulation_steps: int = 1,
        views: Sequence[keras.layers.Layer] | None = None,
        rematerialize: bool = False,
        on_nonfinite: Literal["stop", "skip"] = "stop",
        **kwargs,
    ):
        super().__init__(on_nonfinite, **kwargs)
        if target not in ("ema", "online", "online_with_gradient"):
            raise ValueError(
                f'target: expected "ema", "online" or "online_with_gradient"; received {target!r}'
            )
        features = _width(encoder, "encoder")
        self.encoder = encoder
        self.projector = (
            mlp_head(features, 4096, 256, "projector") if projector == "paper" else projector
        )
        _check_takes(self.projector, features, "projector", "encoder")
        projection = _width(self.projector, "projector")
        self.predictor = (
            mlp_head(projection, 4096, projection, "predictor")
            if predictor == "paper"
            else predictor
        )
        if self.predictor is not None:
            _check_takes(self.predictor, projection, "predictor", "projector")
            if (width := _width(self.predictor, "predictor")) != projection:
                raise ValueError(
                    f"predictor: expected output of shape [N, {projection}], as projections have; "
                    f"received [N, {width}]"
                )
        self.objective = Objective() if objective is None else objective
        self.target = target
        self.train_predictor = train_predictor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.views = None if views is None else list(views)
        self.target_encoder = _copy(encoder, "encoder") if target == "ema" else None
        self.target_projector = _copy(self.projector, "projector") if target == "ema" else None
        self._encode = rematerialized(encoder) if rematerialize else None
        self.target_update = None
        self._metric_means = {
            name: keras.metrics.Mean(name)
            for name in ("loss", "projection_std", "projection_cosine")
        }
        self.built = True

    @property
    def metrics(self):
        return list(self._metric_means.values())

    @property
    def parts(self) -> dict[str, keras.Model]:
        """Name -> online network, in the order in which an image passes them: encoder, projector
        and, if there is one, predictor."""
        parts = {"encoder": self.encoder, "projector": self.projector, "predictor": self.predictor}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def trainable_variables(self):
        """What the optimizer gets: encoder, projector and predictor. The target stays `trainable`
        for Keras (frozen BN would use its moving statistics) but is never among these, nor is a
        predictor that isn't trained."""
        learning = [
            part for name, part in self.parts.items() if name != "predictor" or self.train_predictor
        ]
        return [variable for part in learning for variable in part.trainable_variables]

    def target_pairs(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """(online, target) for every trainable variable of encoder and projector; `RuntimeError` if
        the two don't match one to one."""
        if self.target != "ema":
            raise RuntimeError(
                f'target "{self.target}" has no network that could follow; leave TargetUpdate out, '
                'or choose "ema"'
            )
        online = [*self.encoder.trainable_variables, *self.projector.trainable_variables]
        target = [
            *self.target_encoder.trainable_variables,
            *self.target_projector.trainable_variables,
        ]
        if not target or [(v.name, v.shape) for v in online] != [(v.name, v.shape) for v in target]:
            raise RuntimeError(
                f"online and target variables don't pair up: {len(online)} and {len(target)}; is "
                "the encoder or its target frozen? "
                "Both must stay trainable"
            )
        return list(zip(online, target, strict=True))

    def initialize_from_data(self, images) -> None:
        """Sets every `data_init` normalisation from a batch of views `[N, H, W, 3]`, then makes the
        target network equal the online one.

        To be called once, before training (paper without batch statistics, section 3.2). Without
        such layers it changes nothing.
        """
        initialize_from_data(list(self.parts.values()), images)
        if self.target == "ema":
            self.target_encoder.set_weights(self.encoder.get_weights())
            self.target_projector.set_weights(self.projector.get_weights())

    def call(self, images, training=False):
        """Representations `[N, d]` of normalised images `[N, H, W, 3]`, from the online encoder."""
        return self.encoder(images, training=training)

    def log_names(self):
        return [
            *self._metric_means,
            "learning_rate",
            *(["tau"] if self.target_update is not None else []),
        ]

    def reported_step(self, data):
        """One optimizer step on the views of a batch, then the target's update.

        Returns:
            (running means of the epoch so far by name, float32 `[1 + len(guard.TROUBLES)]`: the
            loss, and flags of what isn't finite).
        """
        if self.views is not None:
            *images, ids = data  # the same images for all views, or for each view its own
            data = [
                view(each, ids)
                for view, each in zip(self.views, itertools.cycle(images), strict=False)
            ]
        views = dict(enumerate(data))
        if len(views) != self.objective.view_count:
            raise ValueError(
                f"expected batches of {self.objective.view_count} views of each image; received "
                f"{len(views)}"
            )
        variables, statistics = self.trainable_variables, self._statistics()
        # What moves before the numbers are looked at.
        moved = [
            *statistics,
            *(
                variable
                for mean in self._metric_means.values()
                for variable in (mean.total, mean.count)
            ),
        ]
        moved_before = [tf.convert_to_tensor(variable) for variable in moved]
        measures, gradients = (
            self._accumulated(views, variables)
            if self.gradient_accumulation_steps > 1
            else self._gradients(views, variables)
        )
        for name, value in self._over_replicas(measures).items():
            self._metric_means[name].update_state(value)
        if not self.optimizer.built:
            self.optimizer.build(variables)
        # The step's loss by what its running sum has become: asked for the loss itself,
        # TensorFlow's graph would round it otherwise in a clean run than without this question.
        loss = self._metric_means["loss"].total - moved_before[len(statistics)]
        found = guard.flags_before(self.optimizer, data, loss, gradients, statistics)
        sound = tf.reduce_all(found == 0.0)
        logs = {"learning_rate": tf.identity(self.optimizer.learning_rate)}
        step = tf.identity(self.optimizer.iterations.value)

        def apply(gradients):
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))

        def restore(values):
            for variable, value in zip(moved, values, strict=True):
                variable.assign(value)

        guard.either(
            sound, (apply, gradients_for_all(self.optimizer, gradients)), (restore, moved_before)
        )
        if self.target_update is not None:
            # A step was left out, or float16's loss scale skipped one whose gradients aren't
            # finite.
            logs["tau"] = self.target_update.apply(
                self.target_pairs(), step, self.optimizer.iterations.value > step
            )
        found = tf.concat([found, guard.flags(*map(guard.total, self._learned()))], axis=0)
        logs = {name: mean.result() for name, mean in self._metric_means.items()} | logs
        return logs, tf.concat([loss[None], found], axis=0)

    def _statistics(self) -> list[keras.Variable]:
        """What a forward pass moves: batch statistics of both networks, and states of layers that
        draw."""
        parts = [
            *self.parts.values(),
            *([self.target_encoder, self.target_projector] if self.target == "ema" else []),
        ]
        return [variable for part in parts for variable in part.non_trainable_variables]

    def _learned(self) -> tuple[list[keras.Variable], list[keras.Variable]]:
        """Weights of the online network and of the target, as in `guard.AFTER`."""
        online = [variable for part in self.parts.values() for variable in part.trainable_variables]
        return online, [target for _, target in self.target_pairs()] if self.target == "ema" else []

    def _over_replicas(self, measures: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The mean over the replicas of each measure, on all of them: any one's running means are
        everyone's, to the last bit."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return measures
        values = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.MEAN, tf.stack(list(measures.values()))
        )
        return dict(zip(measures, tf.unstack(values), strict=True))

    def _gradients(self, views, variables):
        """(loss and collapse measures by name, a gradient for each variable), each gradient this
        replica's share of the global one."""
        objective = self.objective
        targets = self._target_projections(views)
        with tf.GradientTape() as tape:
            # With the online network as target, its projections of the predicted views are needed
            # too.
            wanted = (
                objective.predicting_views if self.target == "ema" else range(objective.view_count)
            )
            representations = _each(
                self.encoder, {view: views[view] for view in wanted}, self._encode
            )
            projections = _each(self.projector, representations)
            if self.target == "online":
                targets = {
                    view: tf.stop_gradient(projections[view]) for view in objective.target_views
                }
            elif self.target == "online_with_gradient":
                targets = projections
            predicting = {view: projections[view] for view in objective.predicting_views}
            predictions = (
                predicting if self.predictor is None else _each(self.predictor, predicting)
            )
            loss = objective(predictions, targets)
            # Gradients are summed over replicas, each of which holds its share of the global batch.
            scaled_loss = self.optimizer.scale_loss(
                loss / self.distribute_strategy.num_replicas_in_sync
            )
        measures = {"loss": loss}
        for name, measure in (("projection_std", spread), ("projection_cosine", mean_cosine)):
            measures[name] = tf.reduce_mean(
                [measure(projections[view]) for view in objective.predicting_views]
            )
        return measures, tape.gradient(scaled_loss, variables)

    def _accumulated(self, views, variables):
        """As `_gradients`, in `gradient_accumulation_steps` equal parts of the batch one after the
        other: a part's memory at a time."""
        parts = self.gradient_accumulation_steps
        if views[0].shape[0] is not None and views[0].shape[0] % parts:
            raise ValueError(
                f"gradient_accumulation_steps: expected a divisor of the {views[0].shape[0]} "
                "images of a "
                f"replica's batch; received {parts}"
            )
        split = {
            view: tf.reshape(images, (parts, -1, *images.shape[1:]))
            for view, images in views.items()
        }

        def add_part(part, measures, gradients):
            new_measures, new = self._gradients(
                {view: images[part] for view, images in split.items()}, variables
            )
            measures = {
                name: value + new_measures[name] / parts for name, value in measures.items()
            }
            return (
                part + 1,
                measures,
                [total + gradient / parts for total, gradient in zip(gradients, new, strict=True)],
            )

        nothing = (
            {name: tf.zeros(()) for name in self._metric_means},
            [tf.zeros(variable.shape) for variable in variables],
        )
        _, measures, gradients = tf.while_loop(
            lambda part, *_: part < parts, add_part, (tf.constant(0), *nothing)
        )
        return measures, gradients

    def _target_projections(self, views):
        """View -> the target network's projection `[N, p]`. It uses batch statistics, as the online
        network does."""
        if self.target != "ema":
            return {}
        wanted = {view: views[view] for view in self.objective.target_views}
        projections = _each(self.target_projector, _each(self.target_encoder, wanted))
        return {view: tf.stop_gradient(projection) for view, projection in projections.items()}


def _each(
    part: keras.Model,
    inputs: dict[int, tf.Tensor],
    run: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> dict[int, tf.Tensor]:
    """The part's output for each view, in training mode; `run` is another way to compute it.

    Batch statistics are per view, so each view is a forward pass of its own; without any, one pass
    serves all, and kernels are standardised once a step.
    """
    run = run or partial(part, training=True)
    if len(inputs) == 1 or not batch_independent(part):
        return {view: run(value) for view, value in inputs.items()}
    outputs = run(tf.concat(list(inputs.values()), axis=0))
    return dict(zip(inputs, tf.split(outputs, len(inputs)), strict=True))


def _width(part: keras.Model, name: str) -> int:
    """The d of a part's output `[N, d]`."""
    if not getattr(part, "built", False) or not part.weights:
        raise ValueError(
            f'{name}: expected a built keras.Model; received "{getattr(part, "name", part)}", '
            "which has no weights yet. Call it on "
            f"{'an image' if name == 'encoder' else 'its input'} first"
        )
    shape = getattr(part(_symbolic_input(part)), "shape", None)
    if shape is None or len(shape) != 2 or shape[-1] is None:
        raise ValueError(
            f'{name}: expected output of shape [N, d]; received {shape} from "{part.name}". End it '
            "with pooling"
        )
    return shape[-1]


def _check_takes(part: keras.Model, features: int, name: str, before: str) -> None:
    _width(part, name)
    shape = _symbolic_input(part).shape
    if shape[1:] != (features,):
        raise ValueError(
            f"{name}: expected a model that takes [N, {features}], the output of the {before}; "
            f"received one for {shape}"
        )


def _symbolic_input(model: keras.Model) -> keras.KerasTensor:
    """What the model was built for. (A subclassed model has no `input_shape`.)"""
    shape = (
        model.input_shape
        if hasattr(model, "input_shape")
        else model.get_build_config()["input_shape"]
    )
    return keras.Input(shape[1:])


def _copy(model: keras.Model, name: str) -> keras.Model:
    """The same network with weights of its own, equal now. (`clone_model` copies none.)"""
    try:
        copy = keras.models.clone_model(model)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected a model that can be copied: functional, Sequential, or with its "
            "arguments in get_config(); Keras can't copy "
            f'"{model.name}"'
        ) from error
    copy(_symbolic_input(model))  # a subclassed model gets its weights when it is called
    copy.set_weights(model.get_weights())
    return copy
