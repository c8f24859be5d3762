"""What is said where memory doesn't suffice, by TensorFlow's own error."""

import pytest
import tensorflow as tf

from byol_tf.config_file import load_config
from byol_tf.memory import out_of_memory_text
from byol_tf.stops import OUT_OF_MEMORY
from byol_tf.train import _exit_code


@pytest.fixture(scope="module")
def error() -> Exception:
    """TensorFlow's own: no machine has 4 exabytes."""
    with pytest.raises(tf.errors.ResourceExhaustedError) as raised:
        tf.zeros((2**30, 2**30))
    return raised.value


def test_it_names_the_batch_and_what_to_lower(error):
    first, *ways, detail = out_of_memory_text(load_config(None, []), error).splitlines()
    assert first == "out of memory: a step on a batch of 128 images of 32 x 32 pixels doesn't fit. To try, in this order:"
    keys = ["training.accumulation=2", "training.recompute=true", "devices.precision=mixed_bfloat16", "training.batch_size", "views.size"]
    assert [key in way for key, way in zip(keys, ways, strict=True)] == [True] * 5
    assert "OOM" in detail


def test_the_command_has_an_exit_code_for_it(error, capsys):
    assert _exit_code(error, load_config(None, []), "") == OUT_OF_MEMORY == 12
    assert "stopped: out of memory: a step on a batch of 128 images" in capsys.readouterr().err


def test_what_is_done_already_is_not_proposed(error):
    done = ["training.accumulation=4", "training.recompute=true", "devices.precision=mixed_bfloat16"]
    text = out_of_memory_text(load_config(None, done), error)
    assert "in 4 parts" in text
    assert "training.accumulation=8" in text
    assert "recompute" not in text
    assert "precision" not in text
