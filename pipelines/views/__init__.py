"""Engines that make views of images from a policy and random parameters."""

from pipelines.views.fused import FusedViews
from pipelines.views.host import HostViews
from pipelines.views.random_params import sample_params

__all__ = ["FusedViews", "HostViews", "sample_params"]
