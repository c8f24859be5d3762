"""Pushing an export to the hub, against a server on this machine that stands in for its API."""

import pytest

from byol_tf.errors import OutputError
from byol_tf.export import hub
from tests.helpers.hub import stand_in

pytest.importorskip("huggingface_hub", reason="huggingface_hub isn't installed (extra hub)")


@pytest.fixture
def server(monkeypatch):
    with stand_in(monkeypatch) as server:
        yield server


@pytest.fixture
def export(tmp_path):
    (tmp_path / "encoder" / "1").mkdir(parents=True)
    (tmp_path / "encoder" / "1" / "saved_model.pb").write_bytes(b"\x00graph")
    (tmp_path / "README.md").write_text("---\nlibrary_name: keras\n---\n# An encoder\n")
    return tmp_path


def test_all_files_are_uploaded_to_a_private_repository(server, export):
    hub.check_hub("me/encoder")
    assert hub.push(export, "me/encoder") == f"{server.address}/me/encoder"
    assert server.files == {
        "README.md": (export / "README.md").read_bytes(),
        "encoder/1/saved_model.pb": b"\x00graph",
    }
    (created,) = server.created
    assert created["name"] == "encoder"
    assert created.get("private") is True or created.get("visibility") == "private"
    assert server.logins == {"Bearer hf_test"}


def test_a_refusal_has_the_hubs_reason(server, export):
    server.refuses = True
    with pytest.raises(OutputError, match="--push-to-hub me/encoder: expected the hub to take it"):
        hub.push(export, "me/encoder")
    assert not server.files


def test_what_a_link_leads_to_is_not_uploaded(server, export, tmp_path_factory):
    private = tmp_path_factory.mktemp("home") / "key"
    private.write_text("private")
    (export / "encoder" / "key").symlink_to(private)
    with pytest.raises(OutputError, match="encoder/key is a link"):
        hub.push(export, "me/encoder")
    assert not server.files


@pytest.mark.parametrize("repo", ["encoder", "me/my encoder", "https://huggingface.co/me/e", ""])
def test_a_name_of_another_form_is_refused_before_the_export(repo):
    with pytest.raises(OutputError, match="expected NAME/REPOSITORY"):
        hub.check_hub(repo)


def test_without_a_login_nothing_is_exported(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(OutputError, match="expected a login"):
        hub.check_hub("me/encoder")
