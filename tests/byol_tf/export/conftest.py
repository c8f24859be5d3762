"""Fixtures of the tests of exports."""

import pytest

from byol_tf.export import sample_images


@pytest.fixture(autouse=True)
def few_samples(request, monkeypatch):
    """In the fast suite files are compared on fewer images, each of which is encoded by itself."""
    if request.node.get_closest_marker("long") is None:
        monkeypatch.setattr(sample_images, "_COMPARED", 50)
        monkeypatch.setattr(sample_images, "_CALIBRATION", 50)
