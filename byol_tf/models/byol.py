"""BYOL as a Keras model (Grill et al. 2020; deepmind-research `byol/byol_experiment.py`)."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Self

import keras
import tensorflow as tf

from byol_tf.models.construction import (
    check_input_width,
    output_width,
    symbolic_input,
    target_copy,
)
from byol_tf.models.losses import Objective, mean_cosine, projection_std
from byol_tf.models.micro_batches import average_over_micro_batches
from byol_tf.models.networks import batch_independent, initialize_from_data, mlp_head
from byol_tf.models.networks import rematerialize as rematerialized
from byol_tf.models.nonfinite import CHECKS, SkipNonFinite, flags, total
from byol_tf.models.trainer import NONFINITE, STEP_LOSS, MultiStepTrainer

PAPER_HIDDEN_SIZE, PAPER_PROJECTION_SIZE = 4096, 256
"""Widths of the paper's projector and predictor (BYOL paper, section 3.3)."""


@keras.saving.register_keras_serializable(package="byol_tf")
class BYOL(MultiStepTrainer):
    """Bootstrap your own latent: the online network predicts the target network's projection.

    Each view of an image predicts the target's projection of another view. With other settings the
    model is SimSiam, SimCLR or what lies between: see `Objective` and `target`. Calling it gives
    representations. `fit` expects batches `(view1, view2)`, each `[N, H, W, 3]` floats as the
    encoder takes them (four views for an objective with two pairs), and the `TargetUpdate`
    callback, without which the target network never moves.

    Example:
        ```python
        model = BYOL(build_encoder("resnet18", image_size=96))
        model.compile(LARS(0.2))
        model.fit(pairs_of_views, callbacks=[TargetUpdate(cosine_tau(0.996, total_steps))])
        representations = model(images)  # [N, d]
        ```

    Args:
        encoder: a built `keras.Model` from images to representations `[N, d]`; it is trained in
            place.
        projector: a built `keras.Model` from representations to projections `[N, p]`. Default: the
            BYOL paper's, 4096 to 256.
        predictor: one from projections to predictions `[N, p]`; None to compare projections
            directly. Default: the BYOL paper's.
        objective: the loss, and which view predicts which. Default: BYOL's.
        target: which network gives the projections to predict: `ema`, a network of its own that
            follows the online one; `online`, the online network with its gradient stopped
            (SimSiam); `online_with_gradient` (SimCLR).
        train_predictor: False leaves the predictor's weights at their initial values (SimSiam
            report, section IV.B).
        gradient_accumulation_steps: number of micro-batches that a replica's batch is taken in, to
            save memory, with one optimizer step and one target update at the end. Batch statistics
            and negatives are then those of a micro-batch.
        views: layers that make each view inside the step, such as
            `pipelines.views.fused.FusedViews`: `view(images, params)`. `fit` then expects batches
            `(images, params)`, as `pipelines.batches.image_batches` gives them, or `(images1,
            images2, params)` with each view's own, as `crop_batches` does. Default: batches are
            views already.
        rematerialize: the backward pass computes most of the encoder's activations again instead of
            keeping them: see `networks.rematerialize.rematerialize`.
        on_nonfinite: what `fit` does when a step's views, loss, gradients or batch statistics
            aren't finite: `stop`, or `skip`. Either way that step changes nothing: neither weights
            nor optimizer, statistics or target. See `trainer.MultiStepTrainer`.
        target_encoder: the target's encoder, a second model built as `encoder` was; it gets that
            one's weights. Default: a copy that Keras makes, which it can't of a subclassed model
            whose constructor arguments aren't in its `get_config()`.
        target_projector: likewise for `projector`.
        name: of the model.
        trainable: as for `keras.Model`.
        dtype: as for `keras.Model`.

    Raises:
        ValueError: if a network isn't built, has another output shape than the next one takes or
            can't be copied, if a target network has other weights than its online network or
            shares them, or for another `target` or `on_nonfinite`.
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
        target_encoder: keras.Model | None = None,
        target_projector: keras.Model | None = None,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | keras.DTypePolicy | None = None,
    ):
        super().__init__(on_nonfinite, name=name, trainable=trainable, dtype=dtype)
        if target not in ("ema", "online", "online_with_gradient"):
            raise ValueError(
                f'target: expected "ema", "online" or "online_with_gradient"; received {target!r}'
            )
        self.encoder = encoder
        self.projector, self.predictor = _build_heads(encoder, projector, predictor)
        self.objective = Objective() if objective is None else objective
        self.target = target
        self.train_predictor = train_predictor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.views = None if views is None else list(views)
        self.target_encoder = self.target_projector = None
        if target == "ema":
            self.target_encoder = target_copy(encoder, target_encoder, "encoder")
            self.target_projector = target_copy(self.projector, target_projector, "projector")
        elif target_encoder is not None or target_projector is not None:
            raise ValueError(
                'target_encoder, target_projector: expected None, as without target "ema" there is '
                "no target network"
            )
        self.rematerialize = rematerialize
        self._encode = rematerialized(encoder) if rematerialize else None
        self.target_update = None  # set by the callback `TargetUpdate`
        self._metric_means = {
            name: keras.metrics.Mean(name)
            for name in ("loss", "projection_std", "projection_cosine")
        }
        self.built = True

    def train_step(self, data: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Makes one optimizer step on the views of a batch, then the target's update.

        Returns:
            float32 scalars: the epoch's means of loss and collapse measures so far,
            `learning_rate`, `tau` if there is a target update, and the report that
            `MultiStepTrainer` takes out.
        """
        optimizer, variables = self.optimizer, self.trainable_variables
        views = self.make_views(data)  # one [N, H, W, 3] for each view
        # What the forward pass changes, with its values before, restored if the step is skipped.
        state = [(variable, tf.convert_to_tensor(variable)) for variable in self._statistics()]
        measures, gradients = self._average_gradients(views)  # {name: []}; one for each variable
        measures = self._mean_over_replicas(measures)
        logs = {"learning_rate": tf.identity(optimizer.learning_rate)}
        step = tf.identity(optimizer.iterations.value)  # []
        failures = SkipNonFinite(optimizer).apply_gradients(
            gradients, variables, views=views, loss=measures["loss"], state=state
        )  # [len(PRE_UPDATE)]
        if self.target_update is not None:
            # Where the optimizer skipped its step, the target stays too.
            updated = optimizer.iterations.value > step
            logs["tau"] = self.target_update.apply(self.target_pairs(), step, updated)
        return self._update_metrics(measures, failures) | logs | self._report(measures, failures)

    def _average_gradients(
        self, views: Sequence[tf.Tensor]
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Returns `loss_and_gradients`, averaged over the micro-batches."""
        if self.gradient_accumulation_steps == 1:
            return self.loss_and_gradients(views)
        zeros = (
            {name: tf.zeros(()) for name in self._metric_means},
            [tf.zeros(variable.shape) for variable in self.trainable_variables],
        )
        return average_over_micro_batches(
            self.loss_and_gradients, views, self.gradient_accumulation_steps, zeros
        )

    def loss_and_gradients(
        self, views: Sequence[tf.Tensor]
    ) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        """Returns loss and collapse measures, and the gradient of each trainable variable.

        Args:
            views: `[N, H, W, 3]` each.

        Returns:
            (float32 scalars by name; gradients, on several replicas a share of the global ones).
        """
        targets = self._target_projections(views)  # {view: [N, p]}; the tape records none of it
        with tf.GradientTape() as tape:
            projections = self._online_projections(views)  # {view: [N, p]}
            if self.target == "online":
                targets = {view: tf.stop_gradient(z) for view, z in projections.items()}
            elif self.target == "online_with_gradient":
                targets = projections
            predictions = {view: projections[view] for view in self.objective.predicting_views}
            if self.predictor is not None:
                predictions = _forward(self.predictor, predictions)  # {view: [N, p]}
            loss = self.objective(predictions, targets)  # []
            # Gradients are summed over replicas, each of which holds its share of the global batch.
            scaled_loss = self.optimizer.scale_loss(
                loss / self.distribute_strategy.num_replicas_in_sync
            )
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        predicting = [projections[view] for view in self.objective.predicting_views]
        return {
            "loss": loss,
            "projection_std": tf.reduce_mean([projection_std(z) for z in predicting]),
            "projection_cosine": tf.reduce_mean([mean_cosine(z) for z in predicting]),
        }, gradients

    def _online_projections(self, views: Sequence[tf.Tensor]) -> dict[int, tf.Tensor]:
        """Returns view -> the online network's projection `[N, p]`."""
        # With the online network as target, its projections of the predicted views are needed too.
        needed = (
            self.objective.predicting_views
            if self.target == "ema"
            else range(self.objective.view_count)
        )
        representations = _forward(
            self.encoder, {view: views[view] for view in needed}, self._encode
        )
        return _forward(self.projector, representations)

    def _target_projections(self, views: Sequence[tf.Tensor]) -> dict[int, tf.Tensor]:
        """Returns view -> the target network's projection `[N, p]`; {} if there is no such network.

        The target uses batch statistics, as the online network does.
        """
        if self.target != "ema":
            return {}
        needed = {view: views[view] for view in self.objective.target_views}
        projections = _forward(self.target_projector, _forward(self.target_encoder, needed))
        return {view: tf.stop_gradient(z) for view, z in projections.items()}

    def make_views(self, data: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the views of a batch, `[N, H, W, 3]` each; made here if the model has `views`."""
        views = list(data)
        if self.views is not None:
            *images, params = data  # the same images for all views, or for each view its own
            views = [
                make_view(view_images, params)
                for make_view, view_images in zip(self.views, itertools.cycle(images))
            ]
        if len(views) != self.objective.view_count:
            raise ValueError(
                f"expected batches of {self.objective.view_count} views of each image; received "
                f"{len(views)}"
            )
        return views

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the online encoder's representations `[N, d]` of images `[N, H, W, 3]`."""
        return self.encoder(images, training=training)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments in Keras' serialised form."""
        arguments = {
            "encoder": self.encoder,
            "projector": self.projector,
            "predictor": self.predictor,
            "objective": self.objective,
            "target": self.target,
            "train_predictor": self.train_predictor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "views": self.views,
            "rematerialize": self.rematerialize,
            "on_nonfinite": self.on_nonfinite,
            "target_encoder": self.target_encoder,
            "target_projector": self.target_projector,
        }
        return super().get_config() | keras.saving.serialize_keras_object(arguments)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Self:
        """Builds a model from what `get_config` returns; its weights are initialised anew."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as the saved one was, with the optimizer's variables."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def export(self, *args, **kwargs) -> None:
        """Exports the encoder from normalised images to representations, as `keras.Model.export`.

        `byol_tf.export_encoder` writes files that take uint8 images of any size.
        """
        kwargs.setdefault("input_signature", [symbolic_input(self.encoder)])
        super().export(*args, **kwargs)

    @property
    def networks(self) -> dict[str, keras.Model]:
        """The online networks by name, in the order in which an image passes them.

        Encoder, projector and, if there is one, predictor.
        """
        networks = {
            "encoder": self.encoder,
            "projector": self.projector,
            "predictor": self.predictor,
        }
        return {name: network for name, network in networks.items() if network is not None}

    @property
    def target_networks(self) -> dict[str, keras.Model]:
        """The target's encoder and projector by name; {} if the target is the online network."""
        if self.target != "ema":
            return {}
        return {"encoder": self.target_encoder, "projector": self.target_projector}

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The optimizer's variables: of encoder, projector and, if it is trained, predictor.

        The target stays `trainable` for Keras (frozen BN would use its moving statistics) but is
        never among these.
        """
        return [
            variable
            for name, network in self.networks.items()
            if name != "predictor" or self.train_predictor
            for variable in network.trainable_variables
        ]

    def target_pairs(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """Returns (online, target) for every trainable variable of encoder and projector.

        Raises:
            RuntimeError: if there is no target network, or the two don't match one to one.
        """
        if self.target != "ema":
            raise RuntimeError(
                f'target "{self.target}" has no network that could follow; leave TargetUpdate out, '
                'or choose "ema"'
            )
        online = [*self.encoder.trainable_variables, *self.projector.trainable_variables]
        target = [v for n in self.target_networks.values() for v in n.trainable_variables]
        if not target or [(v.name, v.shape) for v in online] != [(v.name, v.shape) for v in target]:
            raise RuntimeError(
                f"online and target variables don't pair up: {len(online)} and {len(target)}; is "
                "the encoder or its target frozen? Both must stay trainable"
            )
        return list(zip(online, target, strict=True))

    def initialize_from_data(self, images: tf.Tensor) -> None:
        """Sets every `data_init` normalisation from a batch of views `[N, H, W, 3]`.

        The target network then equals the online one. To be called once, before training (paper
        without batch statistics, section 3.2). Without such layers it changes nothing.
        """
        initialize_from_data(list(self.networks.values()), images)
        for name, network in self.target_networks.items():
            network.set_weights(self.networks[name].get_weights())

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Means over the epoch, which `fit` resets."""
        return list(self._metric_means.values())

    def _update_metrics(
        self, measures: dict[str, tf.Tensor], failures: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Adds a step's measures to the epoch's means unless it was skipped; returns the means."""
        clean = tf.reduce_all(failures == 0.0)
        for name, mean in self._metric_means.items():
            value = tf.where(clean, measures[name], 0.0)
            mean.update_state(value, sample_weight=tf.cast(clean, tf.float32))
        return {name: mean.result() for name, mean in self._metric_means.items()}

    def _report(self, measures: dict[str, tf.Tensor], failures: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the logs that `MultiStepTrainer` removes: the step's loss and failures."""
        online = [v for network in self.networks.values() for v in network.trainable_variables]
        target = [v for _, v in self.target_pairs()] if self.target == "ema" else []
        failures = tf.concat([failures, flags(total(online), total(target))], axis=0)
        failed = zip(CHECKS, tf.unstack(failures), strict=True)
        return {STEP_LOSS: measures["loss"]} | {NONFINITE + name: flag for name, flag in failed}

    def _statistics(self) -> list[keras.Variable]:
        """Returns what a forward pass changes: batch statistics, and states of random layers."""
        networks = [*self.networks.values(), *self.target_networks.values()]
        return [v for network in networks for v in network.non_trainable_variables]

    def _mean_over_replicas(self, measures: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the mean of each measure over the replicas, so that all hold the same bits."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return measures
        values = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.MEAN, tf.stack(list(measures.values()))
        )
        return dict(zip(measures, tf.unstack(values), strict=True))


def _forward(
    network: keras.Model,
    inputs: dict[int, tf.Tensor],
    run: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> dict[int, tf.Tensor]:
    """Returns view -> the network's output in training mode.

    Batch statistics are per view, so each view is a forward pass of its own. Without any, one pass
    serves all views, and kernels are standardised once a step.

    Args:
        network: built.
        inputs: view -> `[N, ...]`.
        run: another way to compute the network's output.
    """
    run = run or partial(network, training=True)
    if len(inputs) == 1 or not batch_independent(network):
        return {view: run(value) for view, value in inputs.items()}
    outputs = run(tf.concat(list(inputs.values()), axis=0))
    return dict(zip(inputs, tf.split(outputs, len(inputs)), strict=True))


def _build_heads(
    encoder: keras.Model,
    projector: keras.Model | Literal["paper"],
    predictor: keras.Model | Literal["paper"] | None,
) -> tuple[keras.Model, keras.Model | None]:
    """Returns projector and predictor, the paper's where it is asked for, checked to fit."""
    features = output_width(encoder, "encoder")
    if projector == "paper":
        projector = mlp_head(features, PAPER_HIDDEN_SIZE, PAPER_PROJECTION_SIZE, "projector")
    check_input_width(projector, features, "projector", "encoder")
    projection = output_width(projector, "projector")
    if predictor == "paper":
        predictor = mlp_head(projection, PAPER_HIDDEN_SIZE, projection, "predictor")
    if predictor is not None:
        check_input_width(predictor, projection, "predictor", "projector")
        if (width := output_width(predictor, "predictor")) != projection:
            raise ValueError(
                f"predictor: expected output of shape [N, {projection}], as projections have; "
                f"received [N, {width}]"
            )
    return projector, predictor
