"""BYOL as a Keras model.

Grill et al., "Bootstrap your own latent: a new approach to self-supervised learning", 2020,
https://arxiv.org/abs/2006.07733; the authors' code is deepmind-research `byol/byol_experiment.py`.
"""

import functools
import warnings
from collections.abc import Callable, Generator, Hashable, Sequence
from typing import Any, Literal, Self

import keras
import tensorflow as tf

from byol_tf.errors import check_choice
from byol_tf.models.batches import check_views, equal_shares, views_made_by
from byol_tf.models.construction import (
    build_heads,
    check_weight_dtype,
    freeze_layers,
    frozen_layers,
    set_weights,
    symbolic_input,
    target_copy,
)
from byol_tf.models.ema import (
    TargetUpdate,
    TauSchedule,
    check_copies,
    match_trainable,
    pair_weights,
    sum_of_weights,
)
from byol_tf.models.forward import forward
from byol_tf.models.gradients import Gradients, average_over_micro_batches, drop_unreached
from byol_tf.models.losses import Objective
from byol_tf.models.measures import (
    Measures,
    collapse_measures,
    mean_over_images,
    mean_over_replicas,
    update_means,
)
from byol_tf.models.networks import initialize_from_data
from byol_tf.models.networks import rematerialize as rematerialized
from byol_tf.models.nonfinite import SkipNonFinite, flags, total
from byol_tf.models.trainer import MultiStepTrainer, step_report


@keras.saving.register_keras_serializable(package="byol_tf")
class BYOL(MultiStepTrainer):
    """Bootstrap your own latent: the online network predicts the target network's projection.

    Each view of an image predicts the target's projection of another view. With other settings the
    model is SimSiam, SimCLR or what lies between, or distils a teacher: see `Objective` and
    `target`. Calling it gives representations. `fit` expects batches `(view1, view2)`, each
    `[N, H, W, 3]` floats as the encoder takes them (four views for an objective with two pairs).

    Losses of the layers of the online network (`add_loss`, weight and activity regularisers) are
    added to the objective, for each view.

    Example:
        ```python
        model = BYOL(build_encoder("resnet18", image_size=96), tau=cosine_tau(0.996, total_steps))
        model.compile(LARS(0.2))
        model.fit(pairs_of_views)
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
            (SimSiam); `online_with_gradient` (SimCLR); `teacher`, the frozen `teacher`, whose
            representations take the place of projections (distillation).
        teacher: a built `keras.Model` from views to representations `[N, p]`, run as for inference
            and never changed, as it is frozen here; for target `teacher` only. `teacher_of_views`
            makes one of an exported encoder.
        tau: of the target's update, target += (1 - tau) (online - target), after each step: a
            number, or a schedule such as `cosine_tau`. A `TargetUpdate` callback replaces it during
            a `fit`. Without either the target never moves, of which `fit` warns; 1 keeps it where
            it is without a warning. It can be set later: `model.tau = 0.99`.
        train_predictor: False leaves the predictor's weights at their initial values (SimSiam
            report, section IV.B).
        gradient_accumulation_steps: number of micro-batches that a replica's batch is taken in, to
            save memory, with one optimizer step and one target update at the end. Batch statistics
            and negatives are then those of a micro-batch.
        joint_batch_statistics: whether batch statistics are those of all views together, as in
            SimCLR's code, instead of each view's own.
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
        name, trainable, dtype: as for `keras.Model`.

    Raises:
        ValueError: if a network isn't built, has weights of another dtype than float32 or another
            output shape than the next one takes, or can't be copied; if a target network has other
            weights than its online network, or it or the teacher shares them; for another `target`
            or `on_nonfinite`; for target `teacher` without a teacher or the reverse; for tau
            outside [0, 1] or without a target network; and for `gradient_accumulation_steps` below
            1.
    """

    def __init__(
        self,
        encoder: keras.Model,
        projector: keras.Model | Literal["paper"] = "paper",
        predictor: keras.Model | Literal["paper"] | None = "paper",
        objective: Objective | None = None,
        target: Literal["ema", "online", "online_with_gradient", "teacher"] = "ema",
        tau: float | TauSchedule | None = None,
        train_predictor: bool = True,
        gradient_accumulation_steps: int = 1,
        joint_batch_statistics: bool = False,
        views: Sequence[keras.layers.Layer] | None = None,
        rematerialize: bool = False,
        on_nonfinite: Literal["stop", "skip"] = "stop",
        target_encoder: keras.Model | None = None,
        target_projector: keras.Model | None = None,
        teacher: keras.Model | None = None,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | keras.DTypePolicy | None = None,
    ):
        super().__init__(on_nonfinite, name=name, trainable=trainable, dtype=dtype)
        check_choice("target", target, ("ema", "online", "online_with_gradient", "teacher"))
        if gradient_accumulation_steps < 1:
            raise ValueError(
                "gradient_accumulation_steps: expected 1 or more; received "
                f"{gradient_accumulation_steps!r}"
            )
        if (target == "teacher") != (teacher is not None):
            raise ValueError(
                f'teacher: expected a keras.Model with target "teacher", else None; received '
                f'{teacher!r} with target "{target}"'
            )
        self.encoder, self.teacher = encoder, teacher
        if teacher is not None:
            teacher.trainable = False
        self.projector, self.predictor = build_heads(encoder, projector, predictor, teacher)
        for role, network in self.networks.items():
            check_weight_dtype(network, role)
        self.objective = Objective() if objective is None else objective
        self.target = target
        self.train_predictor = train_predictor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.joint_batch_statistics = joint_batch_statistics
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
        for role, network in self.target_networks.items():
            network.name = f"target_{role}"  # in `summary`
        self.rematerialize = rematerialize
        self._encode = rematerialized(encoder) if rematerialize else None
        self._own_update: TargetUpdate | None = None
        self.target_update: TargetUpdate | None = None  # the own one, or that of a `fit`'s callback
        self.tau = tau
        self._initial_sum = sum_of_weights(self.target_networks) if target == "ema" else None
        self._warnings: set[str] = set()
        self.epoch_means = {  # of what the step measures
            name: keras.metrics.Mean(name)
            for name in ("loss", "projection_std", "projection_cosine")
        }
        self.built = True

    def train_step(self, data: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Makes one optimizer step on the views of a batch, then the target's update.

        Returns:
            float32 scalars: the epoch's means of loss and collapse measures so far, and other
            `metrics`, `learning_rate`, `tau` if there is a target update, and the report that
            `MultiStepTrainer` takes out.
        """
        optimizer, variables = self.optimizer, self.trainable_variables
        views = equal_shares(self.make_views(data))  # one [N, H, W, 3] for each view
        # Batch statistics and states of random layers, which the forward pass changes, and their
        # values before it, which are restored if the step is skipped.
        networks = [*self.networks.values(), *self.target_networks.values()]
        changed = [v for network in networks for v in network.non_trainable_variables]
        state = [(variable, tf.convert_to_tensor(variable)) for variable in changed]

        measures, gradients = average_over_micro_batches(
            self.loss_and_gradients,
            views,
            self.gradient_accumulation_steps,
            self.epoch_means,
            variables,
        )  # {name: []}; one for each variable
        measures = mean_over_replicas(measures)
        gradients, variables = drop_unreached(gradients, variables, self._warn_once)

        logs = {"learning_rate": tf.identity(optimizer.learning_rate)}
        step = tf.identity(optimizer.iterations.value)  # []
        failures = SkipNonFinite(optimizer).apply_gradients(
            gradients, variables, views=views, loss=measures["loss"], state=state
        )  # [len(PRE_UPDATE)]

        if self.target_update is not None and self.target_update.placement == "step":
            # Where the optimizer skipped its step, the target stays too.
            updated = optimizer.iterations.value > step
            logs["tau"] = self.target_update.apply(self.target_pairs(), step, updated)
        elif self.target_update is None and self.target == "ema":
            self._warn_once(
                "the target network won't move, as there is neither BYOL(tau=...) nor a "
                "TargetUpdate callback; tau=1.0 keeps it where it is without this warning"
            )

        clean = tf.cast(tf.reduce_all(failures == 0.0), tf.float32)
        update_means(self.epoch_means, measures, weight=clean)
        failures = tf.concat([failures, self._check_weights()], axis=0)  # [len(CHECKS)]
        return self.get_metrics_result() | logs | step_report(measures["loss"], failures)

    def loss_and_gradients(self, views: Sequence[tf.Tensor]) -> tuple[Measures, Gradients]:
        """Returns loss and collapse measures, and the gradient of each trainable variable.

        Args:
            views: `[N, H, W, 3]` each.

        Returns:
            (float32 scalars by name; gradients, on several replicas a share of the global ones,
            None where the loss doesn't depend on the variable).
        """
        targets = self._target_projections(views)  # {view: [N, p]}; the tape records none of it
        with tf.GradientTape() as tape:
            loss, projections = self._loss(views, targets)
            # Gradients are summed over replicas, each of which holds its share of the global batch.
            scaled_loss = self.optimizer.scale_loss(
                loss / self.distribute_strategy.num_replicas_in_sync
            )
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        dense = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
        return {"loss": loss} | collapse_measures(projections.values()), dense

    def _target_projections(
        self, views: Sequence[tf.Tensor], training: bool = True
    ) -> dict[int, tf.Tensor]:
        """Returns view -> what the target network or the teacher gives, `[N, p]`; else {}.

        In training the target network uses batch statistics, as the online network does.
        """
        needed = {view: views[view] for view in self.objective.target_views}
        if self.target == "teacher":
            representations = forward(self.teacher, needed, [], training=False)
            return {view: tf.stop_gradient(z) for view, z in representations.items()}
        if self.target != "ema":
            return {}
        joint = self.joint_batch_statistics
        representations = forward(self.target_encoder, needed, [], training, joint=joint)
        projections = forward(self.target_projector, representations, [], training, joint=joint)
        return {view: tf.stop_gradient(z) for view, z in projections.items()}

    def _loss(
        self, views: Sequence[tf.Tensor], targets: dict[int, tf.Tensor], training: bool = True
    ) -> tuple[tf.Tensor, dict[int, tf.Tensor]]:
        """Returns the loss `[]`, and the online projections, predicting view -> `[N, p]`.

        Args:
            views: `[N, H, W, 3]` each.
            targets: of `_target_projections`.
            training: whether the networks use batch statistics.
        """
        predicting = self.objective.predicting_views
        # With the online network as target, its projections of the predicted views are needed too.
        needed = predicting if targets else range(self.objective.view_count)
        losses = [v.regularizer(v) for v in self.trainable_variables if v.regularizer is not None]
        run = functools.partial(
            forward, losses=losses, training=training, joint=self.joint_batch_statistics
        )
        representations = run(
            self.encoder, {view: views[view] for view in needed}, rematerialized=self._encode
        )  # {view: [N, d]}
        projections = run(self.projector, representations)  # {view: [N, p]}
        if self.target == "online":
            targets = {view: tf.stop_gradient(z) for view, z in projections.items()}
        elif self.target == "online_with_gradient":
            targets = projections
        projections = {view: projections[view] for view in predicting}
        predictions = projections
        if self.predictor is not None:
            predictions = run(self.predictor, projections)  # {view: [N, p]}
        loss = self.objective(predictions, targets)  # []
        if losses:
            loss = tf.add_n([loss, *(tf.cast(tf.reduce_sum(x), tf.float32) for x in losses)])
        return loss, projections

    def make_views(self, data: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the views of a batch, `[N, H, W, 3]` each; made here if the model has `views`."""
        if self.views is not None:
            data = views_made_by(self.views, data)
        rank = len(symbolic_input(self.encoder).shape)
        return check_views(data, self.objective.view_count, rank)

    def test_step(self, data: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Computes loss and collapse measures of a batch, as `evaluate` does; changes nothing.

        All networks run as for inference, with their moving statistics.

        Returns:
            float32 scalars: the means of loss and collapse measures over the images so far, and
            other `metrics`.
        """
        views = self.make_views(data)
        if self.objective.negatives:  # of the images of all replicas
            views = equal_shares(views)
        targets = self._target_projections(views, training=False)
        loss, projections = self._loss(views, targets, training=False)
        measures, images = mean_over_images(
            {"loss": loss} | collapse_measures(projections.values()),
            tf.cast(tf.shape(views[0])[0], tf.float32),
        )
        update_means(self.epoch_means, measures, weight=images)
        return self.get_metrics_result()

    @functools.wraps(keras.Model.fit, assigned=())
    def fit(self, x: Any = None, *args, **kwargs) -> keras.callbacks.History:
        """Trains as `keras.Model.fit`; `x` is a dataset of batches, or a view and `y` the other."""
        self.check_scope("fit")
        if kwargs.get("class_weight") is not None:
            raise ValueError("class_weight: expected None, as there are no classes to weight")
        if isinstance(x, tf.data.Dataset | Generator):
            kwargs.setdefault("shuffle", False)  # Keras warns of its own default
        self.target_update = self._own_update  # not one that an `evaluate` was given
        callbacks = kwargs.get("callbacks")
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.set_model(self)  # Keras does so when it makes the list, for one `fit` alone
        try:
            return super().fit(x, *args, **kwargs)
        finally:
            # An interrupted `fit` doesn't call its callbacks again.
            self.target_update = self._own_update

    @property
    def tau(self) -> TauSchedule | None:
        """The schedule of the model's own target update; None if it has none."""
        return None if self._own_update is None else self._own_update.schedule

    @tau.setter
    def tau(self, tau: float | TauSchedule | None) -> None:
        if tau is not None and self.target != "ema":
            raise ValueError(
                f'tau: expected None, as target "{self.target}" has no network that could follow; '
                f"received {tau!r}"
            )
        self._own_update = self.target_update = None if tau is None else TargetUpdate(tau)

    def make_train_function(self, force: bool = False) -> Callable:
        """Builds the function that `fit` calls, as `MultiStepTrainer` does.

        Before the first step of all, weights that were loaded into the online networks are copied
        to a target that is unchanged since it was made.
        """
        targets = self.target_networks
        check_copies(self.networks, targets)
        initial, self._initial_sum = self._initial_sum, None
        if self.optimizer.iterations.numpy() == 0 and initial == sum_of_weights(targets):
            self.reset_target()
        match_trainable(self.networks, targets)
        return super().make_train_function(force)

    def reset_target(self) -> None:
        """Copies the online encoder and projector to the target, moving statistics included.

        Raises:
            ValueError: if a network has other weights than its copy.
        """
        check_copies(self.networks, self.target_networks)
        for name, network in self.target_networks.items():
            set_weights(network, self.networks[name].get_weights())

    def _trace_settings(self) -> tuple[Hashable, ...]:
        update: Hashable = self.target_update
        if type(update) is TargetUpdate:  # a subclass may do anything
            update = (update.schedule, update.placement)
        settings = (self.objective, self.gradient_accumulation_steps, self.joint_batch_statistics)
        return (*super()._trace_settings(), update, *settings)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the online encoder's representations `[N, d]` of images `[N, H, W, 3]`."""
        return self.encoder(images, training=training)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments in Keras' serialised form, and the frozen layers.

        Keras forgets which layers inside a subclassed encoder are frozen.
        """
        frozen = {name: frozen_layers(each) for name, each in self.networks.items()}
        arguments = {
            "encoder": self.encoder,
            "projector": self.projector,
            "predictor": self.predictor,
            "objective": self.objective,
            "target": self.target,
            "tau": self.tau,
            "train_predictor": self.train_predictor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "joint_batch_statistics": self.joint_batch_statistics,
            "views": self.views,
            "rematerialize": self.rematerialize,
            "on_nonfinite": self.on_nonfinite,
            "target_encoder": self.target_encoder,
            "target_projector": self.target_projector,
            "teacher": self.teacher,
        }
        config = super().get_config() | keras.saving.serialize_keras_object(arguments)
        return config | ({"frozen_layers": frozen} if any(frozen.values()) else {})

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Self:
        """Builds a model from what `get_config` returns; its weights are initialised anew."""
        config = dict(config)
        frozen = config.pop("frozen_layers", {})
        model = cls(**keras.saving.deserialize_keras_object(config, custom_objects))
        for name, indices in frozen.items():
            freeze_layers(model.networks[name], indices)
        return model

    def export(self, *args, **kwargs) -> None:
        """Exports the encoder from normalised images to representations, as `keras.Model.export`.

        `byol_tf.export_encoder` writes files that take uint8 images of any size.
        """
        kwargs.setdefault("input_signature", [symbolic_input(self.encoder)])
        super().export(*args, **kwargs)

    @property
    def networks(self) -> dict[str, keras.Model]:
        """The online encoder, projector and, if there is one, predictor by name, in this order."""
        networks = {"encoder": self.encoder, "projector": self.projector}
        return networks if self.predictor is None else networks | {"predictor": self.predictor}

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
        never among these. A weight of a layer that two networks share is listed once.
        """
        trained = {
            id(variable): variable
            for name, network in self.networks.items()
            if name != "predictor" or self.train_predictor
            for variable in network.trainable_variables
        }
        return list(trained.values())

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """All others, those of the target included."""
        trained = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in trained]

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The same as `trainable_variables`, for `summary`."""
        return self.trainable_variables

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """`non_trainable_variables` without the states of random layers."""
        trained = {id(variable) for variable in self.trainable_variables}
        return [weight for weight in self.weights if id(weight) not in trained]

    def target_pairs(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """Returns (online, target) for every trainable variable of encoder and projector.

        The networks are copies of each other, so variables are paired by their position.

        Raises:
            RuntimeError: if there is no target network.
        """
        if self.target != "ema":
            raise RuntimeError(
                f'target "{self.target}" has no network that could follow; leave TargetUpdate out, '
                'or choose "ema"'
            )
        pairs = pair_weights(self.networks, self.target_networks)
        return [(online, target) for online, target in pairs if online.trainable]

    def initialize_from_data(self, images: tf.Tensor) -> None:
        """Sets every `data_init` normalisation from a batch of views `[N, H, W, 3]`.

        The target network then equals the online one. To be called once, before training (paper
        without batch statistics, section 3.2). Without such layers it changes nothing.
        """
        initialize_from_data(list(self.networks.values()), images)
        self.reset_target()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Metrics that `fit` logs and resets: `epoch_means`, a subclass's own, those of layers.

        The target's layers have copies with the same names, which are left out.
        """
        copies = {id(m) for network in self.target_networks.values() for m in network.metrics}
        return [metric for metric in super().metrics if id(metric) not in copies]

    def _check_weights(self) -> tf.Tensor:
        """Returns the flags of `nonfinite.POST_UPDATE`, float32 `[len(POST_UPDATE)]`."""
        online = [v for network in self.networks.values() for v in network.trainable_variables]
        target = [v for _, v in self.target_pairs()] if self.target == "ema" else []
        return flags(total(online), total(target))

    def _warn_once(self, text: str) -> None:
        if text not in self._warnings:
            self._warnings.add(text)
            warnings.warn(text, stacklevel=2)
