"""What a run whose steps wait for images is told to change."""

import pytest

from byol_tf.config_file import load_config
from byol_tf.slow_input import remedies

SMALLER = "photos made smaller once (data.image_size with data.cache=memory)"


@pytest.mark.parametrize(
    ("recipe", "changes", "words"),
    [
        ("demo", (), "views.engine=fused"),
        ("demo", ("views.engine=fused",), ""),
        ("demo", ("views.engine=fused", "views.placement=host"), "views.placement=step"),
        ("few-photos", (), ""),
        ("few-photos", ("data.cache=none",), SMALLER),
        ("imagenet-300", ("views.engine=keras_cv",), f"views.engine=fused, or {SMALLER}"),
    ],
)
def test_nothing_is_named_that_the_config_has_already(recipe, changes, words):
    assert remedies(load_config(recipe, changes)) == words
