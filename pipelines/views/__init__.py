"""Engines that make views of images from a policy and random parameters.

`HostViews`, the engine of tf.data, is in `pipelines.views.keras_cv`: keras-cv takes seconds to
import.
"""

from pipelines.views.fused import FusedViews
from pipelines.views.random_params import sample_params

__all__ = ["FusedViews", "sample_params"]
