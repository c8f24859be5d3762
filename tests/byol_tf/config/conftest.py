"""Fixtures of the tests of config files."""

import pytest


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch):
    """The current folder is `tmp_path`."""
    monkeypatch.chdir(tmp_path)
