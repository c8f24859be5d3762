"""The engines of host views, for tests of each; keras-cv's where it can be imported."""

import keras
import pytest

KERAS_CV_FAILS = tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 16)
KERAS_CV_REASON = "keras-cv 0.9.0, the last one, can't be imported beside Keras 3.16"
ENGINES = [
    "keras",
    pytest.param("keras_cv", marks=pytest.mark.skipif(KERAS_CV_FAILS, reason=KERAS_CV_REASON)),
]
