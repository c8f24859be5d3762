"""Pushing an export to the hub, against a server on this machine that stands in for its API."""

import base64
import http.server
import json
import threading

import pytest

from byol_tf.export import hub

pytest.importorskip("huggingface_hub", reason="huggingface_hub isn't installed (extra hub)")


class StandIn(http.server.BaseHTTPRequestHandler):
    """The part of the hub's API that an upload of small files uses."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        self.server.logins.add(self.headers["Authorization"])
        if self.path == "/api/repos/create":
            if self.server.refuses:
                return self.answer({"error": "You have no right to create it"}, 403)
            self.server.created.append(json.loads(body))
            return self.answer({"url": f"{self.server.address}/me/encoder"})
        if self.path.endswith("/preupload/main"):
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = [
                {"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files
            ]
            return self.answer({"files": modes})
        if "/commit/main" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[line["value"]["path"]] = content
            return self.answer(
                {"commitUrl": f"{self.server.address}/me/encoder/commit/1", "commitOid": "0" * 40}
            )
        return self.answer({"errors": [], "warnings": []})  # of the card's validation

    def do_GET(self):
        if self.server.refuses:
            return self.answer({"error": "Repository not found"}, 404)
        return self.answer({"id": "me/encoder", "sha": "0" * 40, "siblings": []})

    def answer(self, content, status=200):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Prints nothing."""


@pytest.fixture
def server(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        server.address = f"http://127.0.0.1:{server.server_address[1]}"
        server.files, server.created, server.paths, server.logins = {}, [], [], set()
        server.refuses = False
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", server.address)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


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
    with pytest.raises(ValueError, match="--push-to-hub me/encoder: expected the hub to take it"):
        hub.push(export, "me/encoder")
    assert not server.files


@pytest.mark.parametrize("repo", ["encoder", "me/my encoder", "https://huggingface.co/me/e", ""])
def test_a_name_of_another_form_is_refused_before_the_export(repo):
    with pytest.raises(ValueError, match="expected NAME/REPOSITORY"):
        hub.check_hub(repo)


def test_without_a_login_nothing_is_exported(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match="expected a login"):
        hub.check_hub("me/encoder")
