"""Distillation: the step with a frozen teacher, and teachers made of encoders of pixels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf import BYOL, build_encoder, inference_model, mlp_head
from byol_tf.models.inference import plain_encoder
from byol_tf.models.teacher import teacher_of_views
from tests.helpers import tiny
from tests.reference import learning as reference

WIDTH = 7
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)  # of the views
TEACHERS_MEAN, TEACHERS_STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.1)


def teacher() -> keras.Model:
    """From views to `[N, 7]`, with batch normalisation and dropout, which have to be at rest."""
    inputs = keras.Input((tiny.SIZE, tiny.SIZE, 3))
    x = keras.layers.Conv2D(WIDTH, 3, use_bias=False)(inputs)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


def student(of: keras.Model, predictor: bool = False, **options) -> BYOL:
    model = BYOL(
        tiny.encoder(),
        mlp_head(tiny.FEATURES, tiny.HIDDEN, WIDTH, "projector"),
        mlp_head(WIDTH, tiny.HIDDEN, WIDTH, "predictor") if predictor else None,
        target="teacher",
        teacher=of,
        **options,
    )
    model.compile(keras.optimizers.SGD(0.2), jit_compile=False)
    return model


class TestStep:
    @pytest.mark.parametrize("predictor", [False, True])
    def test_loss_and_measures_equal_numpy(self, predictor):
        model, pair = student(teacher(), predictor), [view[0] for view in tiny.views(1)]
        projections = [
            model.projector(model.encoder(view, training=True), training=True) for view in pair
        ]
        predictions = [model.predictor(x, training=True) if predictor else x for x in projections]
        targets = [model.teacher(view, training=False).numpy() for view in pair]
        logs = model.train_step([tf.constant(view) for view in pair])
        assert float(logs["loss"]) == pytest.approx(
            reference.byol_loss(predictions, targets), rel=1e-5
        )
        assert float(logs["projection_std"]) == pytest.approx(
            np.mean([reference.spread(x) for x in projections]), rel=1e-4
        )
        assert "tau" not in logs

    def test_student_approaches_a_teacher_that_stays(self):
        model = student(teacher())
        before = tiny.weights(model.teacher)
        losses = tiny.fit(model, 4, epochs=8)["loss"]
        assert losses[-1] < 0.5 * losses[0]
        for was, now in zip(before, tiny.weights(model.teacher), strict=True):
            np.testing.assert_array_equal(now, was)
        trained = {id(variable) for variable in model.trainable_variables}
        assert not trained & {id(variable) for variable in model.teacher.variables}

    def test_micro_batches_see_the_teacher_of_their_own_images(self):
        """The projector has no batch statistics, so that parts of a batch give the same loss."""
        losses = []
        for count in (1, 2):
            keras.utils.set_random_seed(0)
            model = BYOL(
                keras.Sequential(
                    [
                        keras.Input((tiny.SIZE, tiny.SIZE, 3)),
                        keras.layers.Conv2D(4, 3),
                        keras.layers.Flatten(),
                    ]
                ),
                keras.Sequential([keras.Input((144,)), keras.layers.Dense(WIDTH)]),
                None,
                target="teacher",
                teacher=teacher(),
                gradient_accumulation_steps=count,
            )
            model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
            losses.append(tiny.fit(model, 2, epochs=2)["loss"])
        np.testing.assert_allclose(*losses, rtol=1e-5)

    def test_saved_model_trains_on(self, tmp_path):
        model = student(teacher())
        tiny.fit(model, 2)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert tiny.fit(loaded, 2)["loss"] == tiny.fit(model, 2)["loss"]


class TestErrors:
    def test_target_and_teacher_go_together(self):
        with pytest.raises(ValueError, match=r'teacher: expected a keras\.Model with target "t'):
            BYOL(tiny.encoder(), target="teacher")
        with pytest.raises(ValueError, match=r'received <Functional .* with target "ema"'):
            BYOL(tiny.encoder(), teacher=teacher())

    def test_projections_are_as_wide_as_the_representations(self):
        projector = mlp_head(tiny.FEATURES, tiny.HIDDEN, 5, "projector")
        with pytest.raises(ValueError, match=r"projector: expected output of shape \[N, 7\], as "):
            BYOL(tiny.encoder(), projector, None, target="teacher", teacher=teacher())
        model = BYOL(tiny.encoder(), target="teacher", teacher=teacher())
        assert model.projector.output_shape == (None, WIDTH)

    def test_encoder_is_not_its_own_teacher(self):
        encoder = tiny.encoder()
        with pytest.raises(ValueError, match="teacher: expected weights of its own"):
            BYOL(encoder, target="teacher", teacher=encoder)

    def test_tau_is_refused(self):
        with pytest.raises(ValueError, match='tau: expected None, as target "teacher" has no net'):
            student(teacher(), tau=0.99)


class TestTeacherOfViews:
    @pytest.fixture(scope="class")
    def inference(self) -> keras.Model:
        encoder = build_encoder("convnet", 16, width=0.25)
        return inference_model(encoder, 16, TEACHERS_MEAN, TEACHERS_STD)

    @staticmethod
    def photos_and_views(side: int) -> tuple[np.ndarray, np.ndarray]:
        photos = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
        return photos, ((photos / 255.0 - MEAN) / STD).astype(np.float32)

    @pytest.mark.parametrize("side", [8, 16, 40])
    def test_representations_are_those_of_the_pixels(self, inference, side):
        photos, views = self.photos_and_views(side)
        model = teacher_of_views(inference, side, MEAN, STD)
        np.testing.assert_allclose(model(views), inference(photos), rtol=1e-4, atol=1e-6)
        assert model.supports_jit == (side <= 16)

    def test_xla_compiles_it_with_views_as_large_or_smaller(self, inference):
        photos, views = self.photos_and_views(8)
        model = teacher_of_views(inference, 8, MEAN, STD)
        compiled = tf.function(lambda x: model(x), jit_compile=True)
        np.testing.assert_allclose(compiled(views), inference(photos), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_models_from_elsewhere_get_pixels(self, dtype):
        """Those of 0 to 255 in whole numbers, also where a view's colours lie beyond."""
        images = keras.Input((None, None, 3), dtype=dtype)
        x = keras.layers.Rescaling(1 / 255.0, dtype="float32")(images)
        other = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
        photos, views = self.photos_and_views(8)
        model = teacher_of_views(other, 8, MEAN, STD)
        np.testing.assert_allclose(model(views), other(photos.astype(dtype)), rtol=1e-6)
        far = np.full((1, 8, 8, 3), 9.0, np.float32)
        np.testing.assert_allclose(model(far), [[1.0, 1.0, 1.0]], rtol=1e-6)
        assert not model.supports_jit

    def test_exported_form_is_split_as_the_model_itself(self, inference):
        _, views = self.photos_and_views(16)
        models = [
            teacher_of_views(each, 16, MEAN, STD) for each in (inference, plain_encoder(inference))
        ]
        np.testing.assert_allclose(*[model(views) for model in models], rtol=1e-4, atol=1e-6)
        assert models[1].supports_jit
