"""BYOL as a Keras model (Grill et al. 2020; deepmind-research `byol/byol_experiment.py`)."""

import keras
import tensorflow as tf

from byol_tf.networks import mlp_head
from byol_tf.objectives import mean_cosine, regression_loss, spread


class BYOL(keras.Model):
    """Bootstrap your own latent: the online network learns to predict the target network's projection of another view of the same image.

    Calling the model gives representations; `fit` expects batches `(view1, view2)`, both `[N, H, W, 3]` floats as the encoder takes them,
    and the `TargetUpdate` callback, without which the target never moves.

    Args:
        encoder: a built `keras.Model` from images to representations `[N, d]`; it is trained in place. A subclassed one needs what Keras
            needs to copy it: constructor arguments in `get_config()`.
        hidden: width of the heads' hidden layer.
        projection: width of the projections.
        predictor: `mlp`, or `none` to compare projections directly (STL-10 paper, table 2).

    Raises:
        ValueError: if the encoder isn't built, its output isn't `[N, d]`, it can't be copied, or `predictor` is another word.
    """

    def __init__(self, encoder: keras.Model, hidden: int = 4096, projection: int = 256, predictor: str = "mlp", **kwargs):
        super().__init__(**kwargs)
        if predictor not in ("mlp", "none"):
            raise ValueError(f'predictor: expected "mlp" or "none"; received {predictor!r}')
        features = _representation_width(encoder)
        self.encoder = encoder
        self.projector = mlp_head(features, hidden, projection, "projector")
        self.predictor = mlp_head(projection, hidden, projection, "predictor") if predictor == "mlp" else None
        self.target_encoder = _copy(encoder)
        self.target_projector = _copy(self.projector)
        self.target_update = None
        self._metric_means = {name: keras.metrics.Mean(name) for name in ("loss", "projection_std", "projection_cosine")}
        self.built = True

    @property
    def metrics(self):
        return list(self._metric_means.values())

    @property
    def trainable_variables(self):
        """What the optimizer gets: encoder, projector and predictor. The target stays `trainable` for Keras (frozen BN would use its moving
        statistics) but is never among these."""
        parts = (self.encoder, self.projector, self.predictor)
        return [variable for part in parts if part is not None for variable in part.trainable_variables]

    def target_pairs(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """(online, target) for every trainable variable of encoder and projector; `RuntimeError` if the two don't match one to one."""
        online = [*self.encoder.trainable_variables, *self.projector.trainable_variables]
        target = [*self.target_encoder.trainable_variables, *self.target_projector.trainable_variables]
        if not target or [(v.name, v.shape) for v in online] != [(v.name, v.shape) for v in target]:
            raise RuntimeError(
                f"online and target variables don't pair up: {len(online)} and {len(target)}; is the encoder or its target frozen? "
                "Both must stay trainable"
            )
        return list(zip(online, target, strict=True))

    def call(self, images, training=False):
        """Representations `[N, d]` of normalised images `[N, H, W, 3]`, from the online encoder."""
        return self.encoder(images, training=training)

    def train_step(self, data):
        """One optimizer step on a pair of views, then the target's update; returns the running means of the epoch so far."""
        view1, view2 = data
        # Batch statistics are per view, so each view is a forward pass of its own; the target uses batch statistics too.
        target1 = tf.stop_gradient(self.target_projector(self.target_encoder(view1, training=True), training=True))
        target2 = tf.stop_gradient(self.target_projector(self.target_encoder(view2, training=True), training=True))
        with tf.GradientTape() as tape:
            projection1, prediction1 = self._online(view1)
            projection2, prediction2 = self._online(view2)
            # The two directions are added, not averaged: 0..8, about 4 for unrelated vectors.
            loss = tf.reduce_mean(regression_loss(prediction1, target2) + regression_loss(prediction2, target1))
            # Gradients are summed over replicas, each of which holds its share of the global batch.
            scaled_loss = self.optimizer.scale_loss(loss / tf.distribute.get_strategy().num_replicas_in_sync)
        variables = self.trainable_variables
        step = tf.identity(self.optimizer.iterations.value)
        logs = {"learning_rate": tf.identity(self.optimizer.learning_rate)}
        self.optimizer.apply_gradients(zip(tape.gradient(scaled_loss, variables), variables, strict=True))
        if self.target_update is not None:
            logs["tau"] = self.target_update.apply(self.target_pairs(), step)
        self._metric_means["loss"].update_state(loss)
        self._metric_means["projection_std"].update_state((spread(projection1) + spread(projection2)) / 2.0)
        self._metric_means["projection_cosine"].update_state((mean_cosine(projection1) + mean_cosine(projection2)) / 2.0)
        return {name: mean.result() for name, mean in self._metric_means.items()} | logs

    def _online(self, view):
        """(projection, prediction), each `[N, projection]`; without a predictor the prediction is the projection."""
        projection = self.projector(self.encoder(view, training=True), training=True)
        prediction = projection if self.predictor is None else self.predictor(projection, training=True)
        return projection, prediction


def _representation_width(encoder: keras.Model) -> int:
    if not encoder.built or not encoder.weights:
        raise ValueError(
            f'encoder: expected a built keras.Model; received "{encoder.name}", which has no weights yet. Call it on an image first'
        )
    shape = getattr(encoder(_symbolic_images(encoder)), "shape", None)
    if shape is None or len(shape) != 2 or shape[-1] is None:
        raise ValueError(f'encoder: expected output of shape [N, d]; received {shape} from "{encoder.name}". End it with pooling')
    return shape[-1]


def _symbolic_images(model: keras.Model) -> keras.KerasTensor:
    """What the model was built for. (A subclassed model has no `input_shape`.)"""
    shape = model.input_shape if hasattr(model, "input_shape") else model.get_build_config()["input_shape"]
    return keras.Input(shape[1:])


def _copy(model: keras.Model) -> keras.Model:
    """The same network with weights of its own, equal now. (`clone_model` copies none.)"""
    try:
        copy = keras.models.clone_model(model)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "encoder: expected a model that can be copied: functional, Sequential, or with its arguments in get_config(); Keras can't copy "
            f'"{model.name}"'
        ) from error
    copy(_symbolic_images(model))  # a subclassed model gets its weights when it is called
    copy.set_weights(model.get_weights())
    return copy
