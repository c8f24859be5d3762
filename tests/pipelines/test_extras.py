"""The line that installs extras, by where byol_tf was installed from."""

import importlib.metadata
import json

import pytest

from pipelines import extras
from pipelines.extras import install_line

WHEEL = "byol_tf-0.1.0-py3-none-any.whl"


class Installed:
    """A distribution with what pip has noted of its origin."""

    def __init__(self, origin: dict | None):
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


def test_of_a_clone_it_names_the_clone(monkeypatch, tmp_path):
    monkeypatch.chdir(extras._CLONE)
    assert install_line("cpu") == 'pip install -e ".[cpu]"'
    assert install_line() == 'pip install -e "."'
    monkeypatch.chdir(tmp_path)
    assert install_line("cpu", "heic") == f'pip install -e "{extras._CLONE}[cpu,heic]"'


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, 'pip install "byol_tf[cpu]"'),
        ({"url": "file:///gone/" + WHEEL, "archive_info": {}}, 'pip install "byol_tf[cpu]"'),
        (
            {"url": f"https://example.org/{WHEEL}", "archive_info": {}},
            f'pip install "byol_tf[cpu] @ https://example.org/{WHEEL}"',
        ),
        (
            {"url": "https://example.org/byol_tf", "vcs_info": {"vcs": "git", "commit_id": "1"}},
            'pip install "byol_tf[cpu] @ git+https://example.org/byol_tf"',
        ),
    ],
)
def test_without_a_clone_it_names_what_pip_has_noted(origin, line, monkeypatch, tmp_path):
    monkeypatch.setattr(extras, "_CLONE", tmp_path)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(origin))
    assert install_line("cpu") == line


def test_of_a_wheel_that_is_still_there_it_names_the_file(monkeypatch, tmp_path):
    wheel = tmp_path / "my wheels" / WHEEL
    wheel.parent.mkdir()
    wheel.touch()
    monkeypatch.setattr(extras, "_CLONE", tmp_path)
    origin = {"url": wheel.as_uri(), "archive_info": {}}
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(origin))
    assert install_line("cpu") == f'pip install "{wheel}[cpu]"'


def test_where_nothing_is_known_it_names_the_package(monkeypatch, tmp_path):
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(extras, "_CLONE", tmp_path)
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert install_line("cpu") == 'pip install "byol_tf[cpu]"'
