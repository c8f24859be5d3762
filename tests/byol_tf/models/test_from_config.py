"""Model and optimizer of a config: every recipe takes a step, and every key has its effect."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf import LARS
from byol_tf.compat import build_without_values
from byol_tf.config.loading import load_config, recipes
from byol_tf.config.schedule import training_schedule
from byol_tf.config.schema import Config, Tau
from byol_tf.errors import ConfigError
from byol_tf.models.byol import BYOL
from byol_tf.models.ema import TargetUpdate, constant_tau
from byol_tf.models.from_config import (
    build_model,
    compile_model,
    measure_sizes,
    tau_schedule,
)
from byol_tf.train.callbacks.checkpoint import model_arrays
from pipelines.batches import view_batches
from pipelines.sources import ArrayImages

BATCH = 8
SMALL = [
    "views.size=32",
    "data.image_size=null",
    f"training.batch_size={BATCH}",
    "projector.hidden_size=32",
    "predictor.hidden_size=32",
]
"""What makes a recipe run in seconds: tiny views and batches; kinds, depths and rules stay."""


@pytest.fixture(autouse=True)
def policy():
    """A precision that a test sets ends with it."""
    yield
    keras.mixed_precision.set_global_policy("float32")


def images(count: int = 40, side: int = 32) -> ArrayImages:
    return ArrayImages(
        np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    )


@functools.cache
def views_of(policies: tuple, mean: tuple, std: tuple) -> tuple[tf.Tensor, ...]:
    """A batch of views; several recipes share theirs, and a stream takes seconds to trace."""
    return next(iter(view_batches(images(), policies, 32, BATCH, 0, mean, std)))


def built(config: Config, image_count: int = 40) -> BYOL:
    keras.utils.set_random_seed(config.seed)
    teacher = None
    if config.objective.target == "teacher":  # of another width than the default's projections
        pooling, widen = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(24)
        teacher = keras.Sequential([keras.Input((32, 32, 3)), pooling, widen])
    model = build_model(config, teacher=teacher)
    compile_model(model, config, training_schedule(config, image_count))
    return model


@pytest.mark.parametrize(
    ("changes", "halfway"),
    [
        ({"schedule": "constant"}, 0.9),
        ({"schedule": "cosine"}, 0.95),
        ({"schedule": "cosine", "end": 0.98}, 0.94),
        ({"schedule": "cosine", "end": 0.0}, 0.45),
        ({"schedule": "inverse_cosine"}, 0.7),
        ({"schedule": "inverse_cosine", "end": 0.1}, 0.5),
        ({"schedule": "drop"}, 0.0),
        ({"schedule": "drop", "drop_at": 0.75}, 0.9),
        ({"schedule": "drop", "drop_at": 0.0}, 0.0),
    ],
)
def test_tau_halfway_through_a_run(changes, halfway):
    config = load_config("demo").model_copy(update={"tau": Tau(base=0.9, **changes)})
    assert float(tau_schedule(config, 100)(np.float32(50))) == pytest.approx(halfway, abs=1e-6)


# The others differ from these in numbers alone.
QUICK = "demo", "distill", "stl10"
SHALLOW = "imagenet-gn-ws", "imagenet-modified-init", "imagenet-simclr", "imagenet-simsiam"
"""In the fast suite with few blocks, as all else of them is in no other recipe."""


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        *((name, None) for name in QUICK),
        *((name, "resnet8") for name in SHALLOW),
        *(
            pytest.param(name, None, marks=pytest.mark.long)
            for name in recipes()
            if name not in QUICK
        ),
    ],
)
def test_recipe_takes_a_step_on_its_views(name, encoder):
    wide = [] if name == "demo" else ["encoder.width=0.25"]
    if name == "adapt":  # its network has one width, and doesn't move in the first epoch
        wide = ["encoder.frozen_epochs=0"]
    if encoder is not None:
        wide = ["encoder.width=0.5", f"encoder.name={encoder}"]
    # The stream below makes views.
    config = load_config(name, [*SMALL, *wide, "views.engine=keras_cv"])
    precision = config.devices.precision  # "auto" is bfloat16 on the recipe's own devices
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "auto" else precision)
    model = built(config)
    policies = (config.views.first, config.views.second)
    views = views_of(policies, tuple(config.views.mean), tuple(config.views.std))
    model.initialize_from_data(views[0])
    if config.objective.target == "ema":
        TargetUpdate(constant_tau(config.tau.base)).set_model(model)
    model.optimizer.iterations.assign(5)  # the warm-up begins at 0
    before = [variable.numpy() for variable in model.encoder.trainable_variables]
    logs = model.train_step(views)
    assert all(np.isfinite(float(value)) for value in logs.values())
    moved = [
        np.abs(v.numpy() - was).max()
        for v, was in zip(model.encoder.trainable_variables, before, strict=True)
    ]
    assert max(moved) > 0
    assert all(np.isfinite(moved))
    assert ("tau" in logs) == (config.objective.target == "ema")


def config(**changes) -> Config:
    base = {
        "name": "x",
        "data": {"source": "digits"},
        "views": {"size": 32},
        "encoder": {"name": "convnet", "width": 0.5},
        "projector": {"hidden_size": 32, "output_size": 16},
        "predictor": {"hidden_size": 48},
        "optimizer": {"name": "lars", "base_learning_rate": 0.5, "reference_batch_size": None},
        "training": {"epochs": 10, "batch_size": BATCH},
    }
    merged = base | {key: base.get(key, {}) | value for key, value in changes.items()}
    return Config.model_validate_json(json.dumps(merged))


def norm_names(part: keras.Model) -> set[str]:
    return {
        type(layer).__name__
        for layer in part.layers
        if "norm" in type(layer).__name__.lower() or hasattr(layer, "gamma")
    }


def test_normalization_is_set_per_network():
    parts = {"encoder": "group", "projector": "none", "predictor": "layer"}
    model = build_model(config(**{part: {"normalization": kind} for part, kind in parts.items()}))
    assert norm_names(model.encoder) == {"GroupNorm"}
    assert norm_names(model.projector) == set()
    assert norm_names(model.predictor) == {"GroupNorm"}
    assert {
        layer.groups
        for layer in model.encoder.layers
        if hasattr(layer, "groups") and hasattr(layer, "gamma")
    } == {16}
    assert {
        layer.groups
        for layer in model.predictor.layers
        if hasattr(layer, "groups") and hasattr(layer, "gamma")
    } == {1}
    assert norm_names(build_model(config()).projector) == {"BatchNorm"}


def test_simsiam_heads():
    chosen = config(
        projector={"hidden_size": 32, "output_size": 32, "num_layers": 3, "normalize_output": True},
        predictor={"hidden_size": 8},
    )
    model = build_model(chosen)
    kinds = [type(layer).__name__ for layer in model.projector.layers[1:]]
    assert kinds == [
        "Dense",
        "BatchNorm",
        "ReLU",
        "Dense",
        "BatchNorm",
        "ReLU",
        "Dense",
        "BatchNorm",
    ]
    assert [layer.units for layer in model.predictor.layers if hasattr(layer, "units")] == [8, 32]
    assert [type(layer).__name__ for layer in model.predictor.layers[1:]] == [
        "Dense",
        "BatchNorm",
        "ReLU",
        "Dense",
    ]


def test_keys_of_other_systems_reach_networks_and_optimizer():
    chosen = config(
        encoder={"name": "resnet18", "width": 0.25, "zero_init_residual": True},
        projector={"output_bias": True, "normalize_output": True, "output_center": False},
        predictor={"output_bias": True},
        optimizer={"name": "sgd", "weight_decay": 0.1, "exclude_norm_and_bias": False},
        training={"joint_batch_statistics": True},
    )
    model = built(chosen)
    assert not model.encoder.get_layer("group1_block1_bn2").gamma.numpy().any()
    assert model.projector.get_layer("projector_output").use_bias
    assert (model.projector.layers[-1].scale, model.projector.layers[-1].center) == (True, False)
    assert model.predictor.layers[-1].use_bias
    assert model.joint_batch_statistics
    beta = model.encoder.get_layer("stem_bn").gamma
    zeros = [np.zeros(v.shape, np.float32) for v in model.trainable_variables]
    model.optimizer.apply(zeros, model.trainable_variables)
    assert (beta.numpy() < 1.0).all()


@pytest.mark.parametrize(
    ("kind", "parts", "trained"),
    [
        ("mlp", ["encoder", "projector", "predictor"], True),
        ("fixed", ["encoder", "projector", "predictor"], False),
    ],
)
def test_predictor_is_trained_or_fixed(kind, parts, trained):
    model = build_model(config(predictor={"kind": kind}))
    assert list(model.networks) == parts
    mine = {id(variable) for variable in model.trainable_variables}
    assert all(
        (id(variable) in mine) == trained for variable in model.predictor.trainable_variables
    )


def test_predictor_none_builds_no_predictor():
    assert list(build_model(config(predictor={"kind": "none"})).networks) == [
        "encoder",
        "projector",
    ]
    assert measure_sizes(config(predictor={"kind": "none"})).parameters.keys() == {
        "convnet",
        "projector",
    }
    assert measure_sizes(config()).parameters["predictor"] == 16 * 48 + 48 + 2 * 48 + 48 * 16


@pytest.mark.parametrize(
    "changes",
    [
        *({"optimizer": {"name": name}} for name in ("lars", "adam", "adamw", "lamb", "sgd")),
        {"optimizer": {"name": "sgd", "momentum": 0.0}},
        {"objective": {"target": "online"}, "predictor": {"kind": "fixed"}},
    ],
    ids=str,
)
def test_checkpoint_has_the_measured_size(changes):
    chosen = config(**changes)
    arrays = model_arrays(built(chosen))
    counters = sum(array.nbytes for array in arrays.values() if array.ndim == 0)
    assert (
        measure_sizes(chosen).checkpoint
        == sum(array.nbytes for array in arrays.values()) - counters
    )
    assert counters < 100
    assert measure_sizes(chosen).encoder == sum(
        array.nbytes for name, array in arrays.items() if name.startswith("online/encoder")
    )


@pytest.mark.parametrize(
    ("changes", "precision"),
    [
        ({"optimizer": {"name": "adam"}}, "float32"),
        ({"optimizer": {"name": "lars"}, "encoder": {"normalization": "group"}}, "mixed_float16"),
        *(
            pytest.param(changes, "float32", marks=pytest.mark.long)
            for changes in (
                *({"optimizer": {"name": name}} for name in ("adamw", "lamb", "sgd")),
                *({"encoder": {"normalization": name}} for name in ("layer", "data_init")),
                {"encoder": {"name": "resnet18", "width": 0.25}},
                {"objective": {"target": "online"}, "predictor": {"kind": "fixed"}},
            )
        ),
    ],
    ids=str,
)
def test_checkpoint_has_the_same_names_in_any_process(changes, precision):
    """Whatever was built before: Keras numbers the layers and optimizers of a process."""
    chosen = config(**changes)
    keras.mixed_precision.set_global_policy(precision)
    first = list(model_arrays(built(chosen)))
    for _ in range(2):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        for optimizer in (keras.optimizers.Adam(), LARS(), keras.optimizers.SGD()):
            optimizer.build(model.trainable_variables)
    assert list(model_arrays(built(chosen))) == first
    assert "optimizer/0000/iteration" in first


def test_objective_is_that_of_the_config():
    chosen = config(
        objective={
            "target": "online",
            "symmetrization": "asymmetric",
            "negatives": 0.5,
            "temperature": 0.2,
            "weight": 3.0,
        }
    )
    model = build_model(chosen)
    assert model.target == "online"
    assert (model.objective.symmetrization, model.objective.negatives) == ("asymmetric", 0.5)
    assert (model.objective.temperature, model.objective.weight) == (0.2, 3.0)


def test_only_kernels_decay():
    """LARS spares biases and normalisation parameters: with no gradient, they stay and kernels
    shrink."""
    model = built(config(optimizer={"name": "lars", "weight_decay": 0.1}))
    assert isinstance(model.optimizer, LARS)
    before = {v.path: v.numpy() + 1.0 for v in model.trainable_variables}
    for variable in model.trainable_variables:
        variable.assign(before[variable.path])
    model.optimizer.apply(
        [np.zeros(v.shape, np.float32) for v in model.trainable_variables],
        model.trainable_variables,
    )
    moved = {v.path: np.abs(v.numpy() - before[v.path]).max() for v in model.trainable_variables}
    for path, distance in moved.items():
        assert (distance > 0) == path.endswith("kernel"), path


@pytest.mark.parametrize("name", ["lars", "sgd", "adam", "adamw", "lamb"])
def test_predictor_rate_may_be_constant(name):
    """At the last step the cosine has come to 0, and only the predictor still learns."""
    model = built(config(optimizer={"name": name}, predictor={"schedule": "constant"}))
    last = training_schedule(config(), 40).total_steps
    model.optimizer.iterations.assign(last)
    before = {v.path: v.numpy() for v in model.trainable_variables}
    gradients = [np.ones(v.shape, np.float32) for v in model.trainable_variables]
    model.optimizer.apply(gradients, model.trainable_variables)
    for variable in model.trainable_variables:
        moved = np.abs(variable.numpy() - before[variable.path]).max()
        assert (moved > 1e-5) == ("predictor" in variable.path), variable.path
        assert moved > 1e-5 or moved < 1e-7, variable.path


def test_asymmetric_2x_streams_four_views():
    chosen = config(objective={"symmetrization": "asymmetric_2x"})
    policies = (chosen.views.first, chosen.views.second) * 2
    views = views_of(policies, tuple(chosen.views.mean), tuple(chosen.views.std))
    assert len(views) == 4
    assert min(float(np.abs(a - b).mean()) for i, a in enumerate(views) for b in views[:i]) > 0.01
    model = built(chosen)
    TargetUpdate(constant_tau(0.9)).set_model(model)
    assert np.isfinite(float(model.train_step(views)["loss"]))


def test_networks_without_values_never_take_memory():
    """Keras keeps a list of variables to give values to when the next scope ends."""
    inputs = keras.Input((10**6,))
    outline = build_without_values(
        lambda: keras.Model(inputs, keras.layers.Dense(10**6)(inputs))  # 4 TB
    )
    with keras.StatelessScope():
        pass
    assert [variable.shape for variable in outline.variables] == [(10**6, 10**6), (10**6,)]


def test_frozen_batch_norm_keeps_its_statistics_and_the_rest_is_trained():
    changes = ["encoder.weights=x.weights.h5", "encoder.freeze_batch_norm=true"]
    small = ["encoder.name=resnet8", "encoder.width=0.25", "optimizer.warmup_epochs=0"]
    config = load_config("few-photos", [*SMALL, *small, *changes])
    model = built(config)
    model.tau = constant_tau(0.9)
    model.run_eagerly = True
    networks = {"online": model.encoder, "target": model.target_encoder}
    before = {name: network.get_weights() for name, network in networks.items()}
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8)
    params = np.random.default_rng(0).random((BATCH, 2, 48), np.float32)
    model.train_on_batch(batch, params)
    for name, network in networks.items():
        for variable, was in zip(network.variables, before[name], strict=True):
            moved = not np.array_equal(variable.numpy(), was)
            assert moved == ("conv" in variable.path), (name, variable.path)


def test_frozen_batch_norm_of_random_weights_is_refused():
    with pytest.raises(ConfigError, match=r"without encoder.weights there are no statistics"):
        load_config("few-photos", ["encoder.freeze_batch_norm=true"])
