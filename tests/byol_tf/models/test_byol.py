"""BYOL's step against the algorithm written out, its variables, and its checks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf import BYOL, LARS, Objective, build_encoder, mlp_head
from byol_tf.models.ema import TargetUpdate, constant_tau
from byol_tf.models.networks import weight_standardization
from tests.helpers import tiny
from tests.reference import learning as reference


def a_pair(seed: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    first, second = tiny.views(1, seed=seed)
    return tf.constant(first[0]), tf.constant(second[0])


def compiled(optimizer=None, tau: float | None = None, **options) -> BYOL:
    model = tiny.model(**options)
    model.compile(optimizer or keras.optimizers.SGD(0.2), jit_compile=False)
    if model.target == "ema":
        model.tau = 1.0 if tau is None else tau
    return model


class TestStep:
    @pytest.mark.parametrize("predictor", [True, False])
    def test_loss_and_measures_equal_numpy(self, predictor):
        model, pair = compiled(predictor=predictor), a_pair()
        model.train_step(pair)  # so that online and target differ
        model.reset_metrics()
        projections = [
            model.projector(model.encoder(view, training=True), training=True) for view in pair
        ]
        predictions = [model.predictor(x, training=True) if predictor else x for x in projections]
        targets = [
            model.target_projector(model.target_encoder(view, training=True), training=True).numpy()
            for view in pair
        ]
        logs = model.train_step(pair)
        assert float(logs["loss"]) == pytest.approx(
            reference.byol_loss(predictions, targets), rel=1e-5
        )
        assert float(logs["projection_std"]) == pytest.approx(
            np.mean([reference.spread(x) for x in projections]), rel=1e-4
        )
        assert float(logs["projection_cosine"]) == pytest.approx(
            np.mean([reference.mean_cosine(x) for x in projections]), abs=1e-5
        )
        assert float(logs["learning_rate"]) == pytest.approx(0.2)

    def test_each_view_has_its_own_batch_statistics(self):
        """BN takes a view's scale out; were both views one batch, it could not."""
        model, (first, second) = compiled(keras.optimizers.SGD(0.0)), a_pair()
        one, other = (
            {name: float(value) for name, value in _one_step(model, first, view).items()}
            for view in (second, second * 9.0)
        )
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)

    def test_joint_batch_statistics_are_those_of_both_views(self):
        """As one batch of both views, as in SimCLR's code."""
        model = compiled(
            keras.optimizers.SGD(0.0),
            target="online_with_gradient",
            objective=Objective(negatives=1.0, temperature=0.1),
            joint_batch_statistics=True,
        )
        pair = a_pair()
        logs = model.train_step((pair[0], pair[1] * 9.0))
        both = tf.concat([pair[0], pair[1] * 9.0], axis=0)
        outputs = model.projector(model.encoder(both, training=True), training=True)
        predictions, targets = (
            dict(enumerate(tf.split(x, 2)))
            for x in (model.predictor(outputs, training=True), outputs)
        )
        expected = float(model.objective(predictions, targets))
        assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
        model.joint_batch_statistics = False
        assert float(_one_step(model, pair[0], pair[1] * 9.0)["loss"]) != pytest.approx(
            expected, rel=1e-3
        )

    def test_logs_are_running_means_over_the_epoch(self):
        model = compiled(keras.optimizers.SGD(0.0))
        losses = [float(_one_step(model, *a_pair(seed))["loss"]) for seed in (0, 1)]
        model.reset_metrics()
        model.train_step(a_pair(0))
        assert float(model.train_step(a_pair(1))["loss"]) == pytest.approx(
            np.mean(losses), rel=1e-5
        )
        assert abs(losses[0] - losses[1]) > 1e-3

    def test_gradients_equal_those_of_the_explicit_loss(self):
        model, (first, second) = compiled(keras.optimizers.SGD(1.0)), a_pair()
        variables = model.trainable_variables
        before = [variable.numpy() for variable in variables]
        target1, target2 = (
            model.target_projector(model.target_encoder(view, training=True), training=True).numpy()
            for view in (first, second)
        )

        def cosine(a, b):
            return tf.reduce_sum(a * b, -1) / (tf.norm(a, axis=-1) * tf.norm(b, axis=-1))

        with tf.GradientTape() as tape:
            online1, online2 = (
                model.predictor(
                    model.projector(model.encoder(view, training=True), training=True),
                    training=True,
                )
                for view in (first, second)
            )
            loss = tf.reduce_mean(
                4.0 - 2.0 * cosine(online1, target2) - 2.0 * cosine(online2, target1)
            )
        gradients = tape.gradient(loss, variables)
        model.train_step((first, second))
        for variable, value, gradient in zip(variables, before, gradients, strict=True):
            np.testing.assert_allclose(
                variable.numpy(),
                value - gradient.numpy(),
                rtol=1e-3,
                atol=2e-5,
                err_msg=variable.path,
            )

    def test_loss_falls_in_training(self):
        model = compiled(keras.optimizers.Adam(0.01))
        history = tiny.fit(model, 4, [TargetUpdate(constant_tau(0.9))], epochs=20)
        assert history["loss"][-1] < 0.4 * history["loss"][0]
        assert 2.0 < history["loss"][0] < 6.0


def _updated(model: BYOL, updates: int) -> dict:
    """Steps on one pair until the optimizer has moved so often. (float16's loss scale begins too
    large, and steps are skipped.)"""
    for _ in range(20):
        logs = model.train_step(a_pair())
        if int(model.optimizer.iterations.numpy()) == updates:
            return logs
    raise AssertionError("twenty steps and hardly an update")


def _one_step(model: BYOL, first, second) -> dict:
    model.reset_metrics()
    return model.train_step((first, second))


class TestWhoLearns:
    def test_step_updates_online_networks_and_not_the_target(self):
        model = compiled()
        before = {
            part: [v.numpy() for v in getattr(model, part).trainable_variables] for part in PARTS
        }
        model.train_step(a_pair())
        for part, values in before.items():
            for variable, value in zip(
                getattr(model, part).trainable_variables, values, strict=True
            ):
                moved = np.abs(variable.numpy() - value).max()
                if part.startswith("target"):
                    assert moved == 0.0, variable.path
                elif variable.name == "bias":  # a BN follows, which takes it out again
                    assert moved < 1e-6, variable.path
                else:
                    assert moved > 1e-4, variable.path

    def test_optimizer_has_no_target_variables(self):
        model = tiny.model()
        model.compile(LARS(0.1), jit_compile=False)
        online = [model.encoder, model.projector, model.predictor]
        expected = sum(v.numpy().size for part in online for v in part.trainable_variables)
        slots = [variable for variable in model.optimizer.variables if "momentum" in variable.path]
        assert sum(slot.numpy().size for slot in slots) == expected
        mine = {id(variable) for variable in model.trainable_variables}
        theirs = {
            id(variable)
            for part in (model.target_encoder, model.target_projector)
            for variable in part.variables
        }
        assert theirs
        assert not mine & theirs

    def test_target_has_its_own_moving_statistics(self):
        """They follow the target's own batches, view 1 then view 2, and are not averaged from the
        online network's."""
        model = compiled(keras.optimizers.SGD(0.5), tau=0.5)
        model.train_step(a_pair(0))
        first, second = a_pair(1)
        twin = tiny.model()
        for mine, theirs in zip(
            (*twin.encoder.variables, *twin.projector.variables),
            _target_variables(model),
            strict=True,
        ):
            mine.assign(theirs)
        for view in (first, second):
            twin.projector(twin.encoder(view, training=True), training=True)
        model.train_step((first, second))
        online = {
            v.path: v.numpy()
            for v in (
                *model.encoder.non_trainable_variables,
                *model.projector.non_trainable_variables,
            )
        }
        expected = (*twin.encoder.non_trainable_variables, *twin.projector.non_trainable_variables)
        received = (
            *model.target_encoder.non_trainable_variables,
            *model.target_projector.non_trainable_variables,
        )
        assert len(received) == 4
        for mine, theirs, online_value in zip(expected, received, online.values(), strict=True):
            np.testing.assert_allclose(theirs.numpy(), mine.numpy(), rtol=1e-5, atol=1e-6)
            assert theirs.name in ("moving_mean", "moving_variance")
            assert np.abs(theirs.numpy() - online_value).max() > 1e-5

    def test_target_starts_as_independent_copy(self):
        model = tiny.model()
        for online, target in model.target_pairs():
            np.testing.assert_array_equal(online.numpy(), target.numpy())
            online.assign_add(tf.ones(online.shape))
            assert np.abs(online.numpy() - target.numpy()).min() > 0.9

    def test_frozen_layers_have_no_pairs(self):
        model = tiny.model()
        assert len(model.target_pairs()) == 3 + 5
        model.target_encoder.trainable = False
        assert len(model.target_pairs()) == 3 + 5
        model.encoder.trainable = False
        assert len(model.target_pairs()) == 5

    def test_model_without_predictor_has_fewer_variables(self):
        model = tiny.model(predictor=False)
        assert model.predictor is None
        assert len(model.trainable_variables) == 3 + 5
        assert len(tiny.model().trainable_variables) == 3 + 5 + 5


PARTS = ("encoder", "projector", "predictor", "target_encoder", "target_projector")


def _target_variables(model: BYOL) -> list:
    return [*model.target_encoder.variables, *model.target_projector.variables]


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """An encoder as a user may write it."""

    def __init__(self, width: int, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.conv = keras.layers.Conv2D(width, 3, strides=2)
        self.bn = keras.layers.BatchNormalization()
        self.pool = keras.layers.GlobalAveragePooling2D()

    def call(self, images, training=False):
        return self.pool(keras.ops.relu(self.bn(self.conv(images), training=training)))

    def get_config(self):
        return super().get_config() | {"width": self.width}


class Uncopyable(Subclassed):
    """The same without its argument in the config."""

    get_config = keras.Model.get_config


class Maps(Subclassed):
    """The same without pooling."""

    def call(self, images, training=False):
        return self.bn(self.conv(images), training=training)


def called(encoder: keras.Model) -> keras.Model:
    encoder(np.zeros((1, 8, 8, 3), np.float32))
    return encoder


class TestEncoders:
    def sequential(self):
        return keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(7, 3),
                keras.layers.BatchNormalization(),
                keras.layers.GlobalAveragePooling2D(),
            ]
        )

    def nested(self):
        inputs = keras.Input((8, 8, 3))
        inner = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(7, 3, name="inner_conv"),
                keras.layers.BatchNormalization(),
            ]
        )
        return keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(inner(inputs)))

    @pytest.mark.parametrize("kind", ["sequential", "nested", "subclassed"])
    def test_custom_encoder_trains(self, kind):
        encoder = called(Subclassed(7)) if kind == "subclassed" else getattr(self, kind)()
        model = tiny.wrapped(encoder)
        model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        model.tau = 0.5
        assert model.projector.input_shape == (None, 7)
        views = a_pair()
        np.testing.assert_array_equal(
            model.target_encoder(views[0]).numpy(), encoder(views[0]).numpy()
        )
        assert len(model.target_pairs()) == 4 + 5
        before = [(online.numpy(), target.numpy()) for online, target in model.target_pairs()]
        logs = model.train_step(views)
        assert np.isfinite(float(logs["loss"]))
        for (online, target), (_, was) in zip(model.target_pairs(), before, strict=True):
            np.testing.assert_allclose(
                target.numpy(), (online.numpy() + was) / 2.0, rtol=1e-5, atol=1e-6
            )
        assert np.abs(model.encoder.trainable_variables[0].numpy() - before[0][0]).max() > 1e-5
        np.testing.assert_array_equal(model(views[0]).numpy(), encoder(views[0]).numpy())

    @pytest.mark.parametrize(
        "make", [lambda: Subclassed(4), lambda: keras.Sequential([keras.layers.Conv2D(4, 3)])]
    )
    def test_unbuilt_encoder_is_an_error(self, make):
        with pytest.raises(
            ValueError, match=r"encoder: expected a built keras.Model; .* Call it on an image first"
        ):
            BYOL(make())

    def test_encoder_that_cannot_be_copied_is_an_error(self):
        with pytest.raises(ValueError, match="encoder: expected a model that can be copied"):
            tiny.wrapped(called(Uncopyable(7)))

    @pytest.mark.parametrize(
        "make",
        [
            lambda: keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)]),
            lambda: called(Maps(4)),
        ],
        ids=["sequential", "subclassed"],
    )
    def test_encoder_without_pooling_is_an_error(self, make):
        with pytest.raises(
            ValueError,
            match=r"expected output of shape \[N, d\]; received \(None, \d, \d, 4\) from .* End it with pooling",
        ):
            BYOL(make())

    def test_heads_default_to_the_papers(self):
        model = BYOL(tiny.encoder())
        assert [
            layer.units
            for part in (model.projector, model.predictor)
            for layer in part.layers
            if hasattr(layer, "units")
        ] == [
            4096,
            256,
            4096,
            256,
        ]

    def test_mismatched_head_is_an_error(self):
        with pytest.raises(
            ValueError,
            match=r"projector: expected a model that takes \[N, 6\], the output of the encoder; received",
        ):
            BYOL(tiny.encoder(), mlp_head(7, 10, 5, "projector"))
        with pytest.raises(
            ValueError,
            match=r"predictor: expected a model that takes \[N, 5\], the output of the projector; received",
        ):
            BYOL(tiny.encoder(), mlp_head(6, 10, 5, "projector"), mlp_head(6, 10, 5, "predictor"))
        with pytest.raises(
            ValueError,
            match=r"predictor: expected output of shape \[N, 5\], as projections have; received \[N, 4\]",
        ):
            BYOL(tiny.encoder(), mlp_head(6, 10, 5, "projector"), mlp_head(5, 10, 4, "predictor"))

    def test_unknown_target_is_an_error(self):
        with pytest.raises(
            ValueError,
            match='target: expected "ema", "online", "online_with_gradient" or "teacher"; received '
            "'momentum'",
        ):
            tiny.model(target="momentum")


def written_out(
    model: BYOL, views, target: str, stop: bool, directions, train_predictor: bool = True
) -> dict[str, np.ndarray]:
    """Path -> gradient of the loss, from the networks alone."""

    def cosine(a, b):  # a vector may be 0: ten hidden units can all be off
        squares = tf.reduce_sum(a * a, -1) * tf.reduce_sum(b * b, -1)
        return tf.reduce_sum(a * b, -1) / tf.sqrt(tf.maximum(squares, 1e-12))

    with tf.GradientTape() as tape:
        z = [model.projector(model.encoder(view, training=True), training=True) for view in views]
        p = [model.predictor(x, training=True) if model.predictor is not None else x for x in z]
        t = (
            [
                model.target_projector(model.target_encoder(view, training=True), training=True)
                for view in views
            ]
            if target == "ema"
            else z
        )
        t = [tf.stop_gradient(x) for x in t] if stop else t
        loss = tf.reduce_mean(sum(2.0 - 2.0 * cosine(p[a], t[b]) for a, b in directions))
    variables = model.trainable_variables
    assert (model.predictor is not None and train_predictor) == any(
        "predictor" in variable.path for variable in variables
    )
    return {
        variable.path: gradient.numpy()
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True)
    }


BOTH, ONE, TWO_DRAWS = [(0, 1), (1, 0)], [(0, 1)], [(0, 1), (2, 3)]


class TestFamily:
    """Who gets which gradient: SimSiam, SimCLR and the ablations are settings of the one model."""

    @pytest.mark.parametrize(
        ("options", "target", "stop", "directions"),
        [
            ({}, "ema", True, BOTH),
            ({"predictor": False}, "ema", True, BOTH),
            ({"train_predictor": False}, "ema", True, BOTH),
            ({"target": "online"}, "online", True, BOTH),
            ({"target": "online_with_gradient"}, "online", False, BOTH),
            ({"target": "online_with_gradient", "predictor": False}, "online", False, BOTH),
            ({"objective": Objective(symmetrization="asymmetric")}, "ema", True, ONE),
            (
                {"objective": Objective(symmetrization="asymmetric"), "target": "online"},
                "online",
                True,
                ONE,
            ),
            ({"objective": Objective(symmetrization="asymmetric_2x")}, "ema", True, TWO_DRAWS),
            (
                {"objective": Objective(symmetrization="asymmetric_2x"), "target": "online"},
                "online",
                True,
                TWO_DRAWS,
            ),
        ],
        ids=lambda value: None,
    )
    def test_step_follows_the_gradient_of_the_explicit_loss(
        self, options, target, stop, directions
    ):
        model = compiled(keras.optimizers.SGD(0.05), **options)
        if target == "ema":  # so that online and target differ
            model.train_step((*a_pair(5), *a_pair(6))[: model.objective.view_count])
        model.optimizer.learning_rate = 1.0
        views = (*a_pair(0), *a_pair(1))[: model.objective.view_count]
        expected = written_out(model, views, target, stop, directions, model.train_predictor)
        fixed = model.predictor.get_weights() if not model.train_predictor else None
        before = {variable.path: variable.numpy() for variable in model.trainable_variables}
        model.train_step(views)
        for variable in model.trainable_variables:
            difference = before[variable.path] - variable.numpy()
            np.testing.assert_allclose(
                difference, expected[variable.path], rtol=1e-3, atol=2e-5, err_msg=variable.path
            )
        assert max(np.abs(gradient).max() for gradient in expected.values()) > 0.01
        if fixed is not None:
            trainable = [v.name for v in model.predictor.variables]
            for name, was, now in zip(trainable, fixed, model.predictor.get_weights(), strict=True):
                assert name.startswith("moving") or np.array_equal(was, now), name

    def test_simclr_loss_equals_nt_xent(self):
        objective = Objective(negatives=1.0, temperature=0.5, weight=0.5)
        model = compiled(
            keras.optimizers.SGD(0.0),
            predictor=False,
            target="online_with_gradient",
            objective=objective,
        )
        projections = [
            model.projector(model.encoder(view, training=True), training=True) for view in a_pair()
        ]
        assert float(model.train_step(a_pair())["loss"]) == pytest.approx(
            reference.nt_xent(*projections, 0.5) + 2.0, rel=1e-5
        )

    @pytest.mark.parametrize("target", ["online", "online_with_gradient"])
    def test_only_ema_target_has_its_own_network(self, target):
        model = compiled(target=target)
        assert model.target_encoder is None
        assert model.target_projector is None
        with pytest.raises(
            RuntimeError, match=f'target "{target}" has no network that could follow'
        ):
            model.target_pairs()
        assert "tau" not in model.train_step(a_pair())

    @pytest.mark.parametrize(("directions", "given"), [("symmetric", 4), ("asymmetric_2x", 2)])
    def test_wrong_number_of_views_is_an_error(self, directions, given):
        model = compiled(objective=Objective(symmetrization=directions))
        with pytest.raises(
            ValueError,
            match=rf"expected batches of {6 - given} views of each image, .* received {given}: ",
        ):
            model.train_step((*a_pair(), *a_pair())[:given])

    def test_views_share_one_pass_without_batch_statistics(self, monkeypatch):
        """And so each kernel is standardised once a step."""
        keras.utils.set_random_seed(0)
        encoder = build_encoder("convnet", 32, 0.5, normalization="group")
        heads = [
            mlp_head(width, 32, 16, name, normalization="group")
            for width, name in ((64, "projector"), (16, "predictor"))
        ]
        model = BYOL(encoder, *heads, tau=1.0)
        model.compile(keras.optimizers.SGD(1.0), jit_compile=False)
        pair = [
            tf.constant(np.random.default_rng(view).normal(size=(8, 32, 32, 3)), tf.float32)
            for view in (0, 1)
        ]
        expected = written_out(model, pair, "ema", True, BOTH)
        before = {variable.path: variable.numpy() for variable in model.trainable_variables}
        standardized, kernels = weight_standardization.standardized, []
        monkeypatch.setattr(
            weight_standardization,
            "standardized",
            lambda kernel, epsilon: kernels.append(kernel) or standardized(kernel, epsilon),
        )
        model.train_step(pair)
        assert (
            len(kernels) == 4 + 2 + 2 + 4 + 2
        )  # online encoder, projector and predictor, target encoder and projector
        for variable in model.trainable_variables:
            difference = before[variable.path] - variable.numpy()
            np.testing.assert_allclose(
                difference, expected[variable.path], rtol=1e-3, atol=1e-4, err_msg=variable.path
            )

    def test_data_init_sets_online_and_target_alike(self):
        keras.utils.set_random_seed(0)
        encoder = build_encoder("convnet", 8, 0.5, normalization="data_init")
        model = BYOL(encoder, mlp_head(64, 10, 5, "projector", normalization="data_init"), None)
        before = model.encoder.get_weights()
        model.initialize_from_data(a_pair()[0])
        assert any(
            np.abs(was - now).max() > 0.1
            for was, now in zip(before, model.encoder.get_weights(), strict=True)
        )
        for online, target in model.target_pairs():
            np.testing.assert_array_equal(online.numpy(), target.numpy())


class TestSaving:
    def test_weights_round_trip(self, tmp_path):
        model = compiled(tau=0.9)
        model.train_step(a_pair())
        model.save_weights(tmp_path / "model.weights.h5")
        other = tiny.model(seed=1)
        assert (
            np.abs(other.encoder.variables[0].numpy() - model.encoder.variables[0].numpy()).max()
            > 0.01
        )
        other.load_weights(tmp_path / "model.weights.h5")
        for part in PARTS:
            for one, two in zip(
                getattr(model, part).variables, getattr(other, part).variables, strict=True
            ):
                np.testing.assert_array_equal(one.numpy(), two.numpy())

    def test_call_and_predict_return_inference_representations(self):
        model, (view, _) = tiny.model(), a_pair()
        expected = model.encoder(view, training=False).numpy()
        np.testing.assert_array_equal(model(view).numpy(), expected)
        np.testing.assert_allclose(model.predict(view.numpy(), verbose=0), expected, atol=1e-6)
        assert expected.shape == (16, tiny.FEATURES)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
class TestMixedPrecision:
    @pytest.fixture(autouse=True)
    def policy(self, precision):
        keras.mixed_precision.set_global_policy(precision)
        yield
        keras.mixed_precision.set_global_policy("float32")

    def test_loss_and_weights_are_float32(self, precision):
        model = compiled(tau=0.5)
        before = [variable.numpy() for variable in model.trainable_variables]
        target_before = model.target_encoder.trainable_variables[0].numpy()
        logs = _updated(model, 2)
        assert {tf.convert_to_tensor(value).dtype for value in logs.values()} == {tf.float32}
        assert all(np.isfinite(float(value)) for value in logs.values())
        assert {variable.dtype for variable in model.variables} == {"float32"}
        assert (
            np.abs(model.target_encoder.trainable_variables[0].numpy() - target_before).max() > 1e-4
        )
        for variable, value in zip(model.trainable_variables, before, strict=True):
            assert np.isfinite(variable.numpy()).all()
            if variable.name != "bias":
                assert np.abs(variable.numpy() - value).max() > 1e-4, variable.path
        assert model.encoder(a_pair()[0]).dtype == precision.removeprefix("mixed_")

    def test_first_step_is_close_to_float32(self, precision):
        model = compiled()
        half = float(_updated(model, 1)["loss"])
        moved = model.predictor.get_layer("predictor_output").kernel.numpy()
        keras.mixed_precision.set_global_policy("float32")
        exact = compiled()
        assert half == pytest.approx(float(exact.train_step(a_pair())["loss"]), rel=0.02)
        start = tiny.model().predictor.get_layer("predictor_output").kernel.numpy()
        difference = exact.predictor.get_layer("predictor_output").kernel.numpy() - start
        assert np.abs(moved - start - difference).max() < 0.1 * np.abs(difference).max()
