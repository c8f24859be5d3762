"""What is said where memory doesn't suffice, by TensorFlow's own error."""

import pytest
import tensorflow as tf

from byol_tf.config_file import load_config
from byol_tf.experiment import Experiment
from byol_tf.memory import out_of_memory_text
from byol_tf.stops import OUT_OF_MEMORY, OutOfMemory


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


def test_a_run_that_meets_it_stops_with_a_code_for_it(error, monkeypatch):
    """The error comes from nowhere here: on a CPU the system ends a process before TensorFlow can say so."""

    def fit(*_):
        raise error

    monkeypatch.setattr(Experiment, "_run", fit)
    experiment = Experiment(load_config("demo", ["data.pretrain_images=128", "devices.strategy=cpu", "probe.supervised=false"]), None)
    with pytest.raises(OutOfMemory, match="out of memory: a step on a batch of 128 images") as raised:
        experiment.run([])
    assert raised.value.exit_code == OUT_OF_MEMORY == 12


def test_what_is_done_already_is_not_proposed(error):
    done = ["training.accumulation=4", "training.recompute=true", "devices.precision=mixed_bfloat16"]
    text = out_of_memory_text(load_config(None, done), error)
    assert "in 4 parts" in text
    assert "training.accumulation=8" in text
    assert "recompute" not in text
    assert "precision" not in text
