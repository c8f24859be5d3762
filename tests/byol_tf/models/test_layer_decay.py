"""Groups of an encoder's variables by depth, and the rates that a config gives them."""

import keras
import numpy as np
import pytest

from byol_tf.config.schedule import training_schedule
from byol_tf.config.schema import Config
from byol_tf.models.from_config import build_model, compile_model
from byol_tf.models.layer_decay import GROUPS, depth_groups
from byol_tf.models.networks import build_encoder
from byol_tf.models.optimizers import WarmupSchedule
from tests.helpers.small_run import CONFIG


class Block(keras.layers.Layer):
    """A block with a variable of its own and two layers, as of a vision transformer."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, shape[-1]), name="token")
        self.first, self.second = keras.layers.Dense(8, name="first"), keras.layers.Dense(8)
        self.first.build(shape)
        self.second.build(shape)

    def call(self, x):
        return self.second(self.first(x + self.token))


def test_every_variable_is_in_one_group_in_the_order_of_depth():
    encoder = build_encoder("resnet18", 32, 1 / 16)
    groups = depth_groups(encoder)
    assert len(groups) == GROUPS
    variables = [variable for group in groups for variable in group]
    assert sorted(map(id, variables)) == sorted(map(id, encoder.trainable_variables))
    first = {variable.path.split("/")[0] for variable in groups[0]}
    assert first == {"stem_conv", "stem_bn", "group1_block1_conv1", "group1_block1_bn1"}
    assert {variable.path.split("/")[0] for variable in groups[-1]} == {
        "group4_block2_conv2",
        "group4_block2_bn2",
    }


def test_blocks_inside_layers_and_models_are_counted_one_by_one():
    inner = keras.Sequential([keras.Input((4, 8)), Block(name="one"), Block(name="two")])
    images = keras.Input((4, 8))
    encoder = keras.Model(images, Block(name="three")(inner(images)))
    groups = depth_groups(encoder)
    assert [len(group) for group in groups] == 3 * [1, 2, 2]  # token, first, second
    blocks = [*inner.layers, encoder.layers[-1]]
    for position, block in enumerate(blocks):
        assert groups[3 * position][0] is block.token
        assert groups[3 * position + 2][0] is block.second.kernel


def config(**changes) -> Config:
    tree = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIG.items()}
    tree["training"] = {"epochs": 10, "batch_size": 64}
    for key, value in changes.items():
        section, name = key.split("__")
        tree.setdefault(section, {})[name] = value
    return Config.model_validate(tree)


def test_rates_fall_from_the_heads_to_the_first_layer():
    settings = config(optimizer__layer_decay=0.5)
    model = build_model(settings)
    compile_model(model, settings, training_schedule(settings, 640))
    optimizer = model.optimizer

    def rate(variable):
        return float(optimizer._rate(variable, optimizer.learning_rate))

    peak = settings.optimizer.base_learning_rate / 4
    rates = [rate(model.encoder.get_layer(f"conv{i}").kernel) for i in (1, 2, 3, 4)]
    np.testing.assert_allclose(rates, peak * 0.5 ** np.array([4, 3, 2, 1]), rtol=1e-6)
    for head in (model.projector, model.predictor):
        assert all(rate(variable) == pytest.approx(peak) for variable in head.trainable_variables)


@pytest.mark.filterwarnings("ignore:the target network won't move")
def test_frozen_encoder_keeps_its_weights_until_its_warm_up():
    settings = config(
        encoder__frozen_epochs=2, optimizer__warmup_epochs=1, optimizer__weight_decay=0.1
    )
    model = build_model(settings)
    compile_model(model, settings, training_schedule(settings, 64))  # a step an epoch
    views = np.random.default_rng(0).normal(size=(2, 64, 32, 32, 3)).astype(np.float32)
    before = [variable.numpy() for variable in model.encoder.trainable_variables]
    heads = [variable.numpy() for variable in model.projector.trainable_variables]
    changed = []
    for _ in range(4):
        model.train_on_batch(*views)
        after = [variable.numpy() for variable in model.encoder.trainable_variables]
        changed.append(any((a != b).any() for a, b in zip(before, after, strict=True)))
    assert changed == [False, False, False, True]  # the warm-up's first step has a rate of 0
    kernel = model.projector.trainable_variables[0].numpy()
    assert (kernel != heads[0]).any()


def test_frozen_steps_move_the_schedule_and_end_it_as_before():
    schedule = WarmupSchedule(1.0, 12, 2, "cosine", frozen_steps=4)
    shifted = WarmupSchedule(1.0, 8, 2, "cosine")
    rates = [float(schedule(step)) for step in range(13)]
    assert rates[:5] == [0.0] * 5
    np.testing.assert_allclose(rates[4:], [float(shifted(step)) for step in range(9)], atol=1e-7)
    assert schedule.get_config()["frozen_steps"] == 4
