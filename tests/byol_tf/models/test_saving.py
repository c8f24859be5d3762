"""BYOL models and their encoders saved, loaded, copied and exported as other Keras models are."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf import BYOL, LARS, FusedViews, Objective, WarmupSchedule, cosine_tau, mlp_head
from byol_tf.models.ema import TargetUpdate
from pipelines.policy import ViewPolicy
from tests.helpers import tiny
from tests.helpers.child_code import run_code

STEPS = 4


def compiled(optimizer: keras.optimizers.Optimizer | None = None, **options) -> BYOL:
    model = tiny.model(**options)
    compile_eagerly(model, optimizer or LARS(0.5, l2=0.1))
    return model


def compile_eagerly(model: BYOL, optimizer: keras.optimizers.Optimizer) -> None:
    """A few eager steps of so small a model take less time than tracing one."""
    model.compile(optimizer, run_eagerly=True, jit_compile=False)


def trained(optimizer: keras.optimizers.Optimizer | None = None) -> BYOL:
    model = compiled(optimizer)
    train(model)
    return model


def train(model: BYOL, callbacks=()) -> None:
    tiny.fit(model, 2, [TargetUpdate(cosine_tau(0.5, STEPS)), *callbacks])


def weights(model: BYOL) -> list[np.ndarray]:
    return tiny.all_weights(model) + [variable.numpy() for variable in model.optimizer.variables]


def assert_same(model: BYOL, other: BYOL) -> None:
    for one, two in zip(weights(model), weights(other), strict=True):
        np.testing.assert_array_equal(one, two)


# whole models


@pytest.mark.parametrize("optimizer", [LARS(0.5, l2=0.1), keras.optimizers.AdamW(1e-2)])
def test_loaded_model_trains_on_as_the_saved_one(optimizer, tmp_path):
    model = trained(optimizer)
    model.save(tmp_path / "byol.keras")
    loaded = keras.models.load_model(tmp_path / "byol.keras")
    assert loaded.run_eagerly
    assert int(loaded.optimizer.iterations) == 2
    assert_same(loaded, model)
    before = tiny.all_weights(model)
    train(model)
    train(loaded)
    assert_same(loaded, model)
    after = tiny.all_weights(loaded)
    assert max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) > 1e-3


@keras.saving.register_keras_serializable("test_saving")
class Subclassed(keras.Model):
    """An encoder of whose layers Keras saves no config."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(7, 3)
        self.bn = keras.layers.BatchNormalization()
        self.pool = keras.layers.GlobalAveragePooling2D()

    def call(self, images, training=False):
        return self.pool(self.bn(self.conv(images), training=training))


@pytest.mark.parametrize(
    ("freeze", "kept"),
    [
        (lambda encoder: [encoder.bn], ["conv"]),
        (lambda encoder: [encoder.conv], ["bn"]),
        (lambda encoder: [encoder], []),
    ],
)
def test_layers_inside_a_subclassed_encoder_stay_frozen(freeze, kept, tmp_path):
    encoder = Subclassed()
    encoder(np.zeros((1, tiny.SIZE, tiny.SIZE, 3), np.float32))
    model = tiny.wrapped(encoder, tau=0.9)
    for layer in freeze(model.encoder):
        layer.trainable = False
    compile_eagerly(model, keras.optimizers.SGD(0.1, momentum=0.9))
    tiny.fit(model, 1)
    model.save(tmp_path / "byol.keras")
    loaded = keras.models.load_model(tmp_path / "byol.keras")
    assert_same(loaded, model)
    names = ("conv", "bn")
    assert [name for name in names if getattr(loaded.encoder, name).trainable] == kept
    before = tiny.all_weights(loaded)
    tiny.fit(model, 1)
    tiny.fit(loaded, 1)
    assert_same(loaded, model)
    moved = max(np.abs(a - b).max() for a, b in zip(before, tiny.all_weights(loaded), strict=True))
    assert moved > 1e-4


def test_every_argument_is_saved(tmp_path):
    view = FusedViews(ViewPolicy(), tiny.SIZE, 0, (0.5,) * 3, (0.25,) * 3)
    options = {
        "objective": Objective(symmetrization="asymmetric", weight=0.5),
        "train_predictor": False,
        "gradient_accumulation_steps": 2,
        "tau": cosine_tau(0.9, 10),
        "views": [view, view],
        "rematerialize": True,
        "joint_batch_statistics": True,
        "on_nonfinite": "skip",
        "name": "mine",
    }
    model = tiny.model(**options)
    model.save(tmp_path / "byol.keras")
    loaded = keras.models.load_model(tmp_path / "byol.keras")
    for name, value in options.items():
        assert name == "views" or getattr(loaded, name) == value
    assert loaded.views[0].policy == view.policy
    without = tiny.model(predictor=False, target="online")
    without.save(tmp_path / "simsiam.keras")
    loaded = keras.models.load_model(tmp_path / "simsiam.keras")
    assert (loaded.predictor, loaded.target, loaded.target_encoder) == (None, "online", None)


def test_every_constructor_argument_is_in_the_config():
    """An argument that isn't is lost when a model is saved."""
    code = BYOL.__init__.__code__
    names = code.co_varnames[1 : code.co_argcount]
    assert set(names) == set(tiny.model().get_config())


def test_one_public_name_registers_all_classes(tmp_path):
    """Keras finds a class by name once the module that registers it is imported."""
    view = FusedViews(ViewPolicy(), tiny.SIZE, 0, (0.5,) * 3, (0.25,) * 3)
    model = compiled(LARS(WarmupSchedule(0.5, total_steps=9)), views=[view, view])
    model.save(tmp_path / "byol.keras")
    done = run_code(
        "import byol_tf, keras\n"
        "byol_tf.build_encoder\n"
        f"loaded = keras.models.load_model({str(tmp_path / 'byol.keras')!r})\n"
        "print(float(loaded.optimizer.learning_rate))"
    )
    assert done == 0.5


def test_rates_that_no_file_holds_are_named(tmp_path):
    model = tiny.model()
    optimizer = LARS(0.5)
    optimizer.set_group_rate(model.predictor.trainable_variables, 0.25)
    compile_eagerly(model, optimizer)
    with pytest.warns(UserWarning, match="set_group_rate"):
        model.save(tmp_path / "byol.keras")


# encoders


def with_lambda() -> keras.Model:
    images = keras.Input((tiny.SIZE, tiny.SIZE, 3))
    x = keras.layers.Lambda(lambda x: x / 2.0)(images)
    x = keras.layers.Conv2D(tiny.FEATURES, 3)(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


class Wired(keras.Model):
    """A subclassed encoder whose layer is an argument that no config can hold."""

    def __init__(self, conv, pool=lambda x: tf.reduce_mean(x, (1, 2))):
        super().__init__()
        self.conv, self.pool = conv, pool

    def call(self, images):
        return self.pool(self.conv(images))


def wired() -> keras.Model:
    model = Wired(keras.layers.Conv2D(tiny.FEATURES, 3))
    model(tf.zeros((1, tiny.SIZE, tiny.SIZE, 3)))
    return model


def heads() -> list[keras.Model]:
    return [
        mlp_head(tiny.FEATURES, tiny.HIDDEN, tiny.PROJECTION, "projector"),
        mlp_head(tiny.PROJECTION, tiny.HIDDEN, tiny.PROJECTION, "predictor"),
    ]


def test_target_encoder_stands_in_for_a_copy():
    with pytest.raises(ValueError, match="build it a second time, and pass that as target_encoder"):
        BYOL(wired(), *heads())
    encoder, twin = wired(), wired()
    model = BYOL(encoder, *heads(), target_encoder=twin)
    assert model.target_encoder is twin
    for online, target in model.target_pairs():
        np.testing.assert_array_equal(online.numpy(), target.numpy())
    compile_eagerly(model, LARS(0.5))
    train(model)
    assert np.abs(encoder.get_weights()[0] - twin.get_weights()[0]).max() > 1e-4


def test_target_projector_stands_in_for_a_copy():
    projector, predictor = heads()
    model = BYOL(tiny.encoder(), projector, predictor, target_projector=heads()[0])
    np.testing.assert_array_equal(
        model.target_projector.get_weights()[0], projector.get_weights()[0]
    )


def test_wrong_target_encoder_is_named():
    encoder = tiny.encoder()
    with pytest.raises(ValueError, match="target_encoder: expected weights of its own"):
        BYOL(encoder, *heads(), target_encoder=encoder)
    with pytest.raises(ValueError, match="target_encoder: expected a model with the 5 weights"):
        BYOL(encoder, *heads(), target_encoder=with_lambda())
    with pytest.raises(ValueError, match="there is no target network"):
        BYOL(encoder, *heads(), target="online", target_encoder=tiny.encoder())


def test_target_has_the_statistics_of_an_adapted_normalization():
    """Keras' set_weights leaves the constants that the layer computed from them before."""
    layer = keras.layers.Normalization()
    layer.adapt(5.0 + 3.0 * tiny.views(1)[0][0])
    images = keras.Input((tiny.SIZE, tiny.SIZE, 3))
    x = keras.layers.Conv2D(tiny.FEATURES, 3)(layer(images))
    model = BYOL(keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)), *heads())
    batch = tiny.views(1)[0][0]
    np.testing.assert_array_equal(model.target_encoder(batch), model.encoder(batch))
