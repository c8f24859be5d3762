"""Fixtures of the tests of converted checkpoints."""

import functools
from types import ModuleType

import pytest

from byol_tf.constants import RESNETS
from byol_tf.convert import deepmind, pytorch
from byol_tf.models.networks import build_encoder
from tests.helpers.conversion import SHALLOW


@pytest.fixture(scope="session")
def haiku_byol() -> ModuleType:
    """`tests.helpers.haiku_byol`, imported by the tests that use it: JAX and Haiku take seconds."""
    from tests.helpers import haiku_byol

    return haiku_byol


@pytest.fixture(scope="module")
def shallow():
    """Gives the networks of a file few blocks, so that its tests take seconds.

    test_photos.py has the published sizes.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("resnet18", "resnet50", "wide_resnet50_2"):
            patch.setitem(RESNETS, name, SHALLOW)
        yield


@pytest.fixture
def built_once(monkeypatch):
    """Builds each network once, for tests in which no weight is assigned."""
    for module in (deepmind, pytorch):
        monkeypatch.setattr(module, "build_encoder", _built)


_built = functools.cache(build_encoder)
