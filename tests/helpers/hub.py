"""A server on this machine that stands in for Hugging Face's hub."""

import base64
import contextlib
import hashlib
import http.server
import json
import threading


class StandIn(http.server.BaseHTTPRequestHandler):
    """The part of the hub's API that uploads and downloads of small files use."""

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

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.server.refuses:
            return self.answer({"error": "Repository not found"}, 404)
        self.server.paths.append(self.path)
        if "/resolve/" in self.path:
            return self.send(self.server.files[self.path.split("/resolve/")[1].partition("/")[2]])
        if "/tree/" in self.path:
            return self.answer(
                [
                    {"type": "file", "path": path, "size": len(content), "oid": path}
                    for path, content in self.server.files.items()
                ]
            )
        return self.answer({"id": "me/encoder", "sha": "0" * 40, "siblings": []})

    def answer(self, content, status=200):
        self.send(json.dumps(content).encode(), status, "application/json")

    def send(self, content, status=200, kind="application/octet-stream"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", hashlib.sha256(content).hexdigest())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        """Prints nothing."""


@contextlib.contextmanager
def stand_in(monkeypatch):
    """Runs a stand-in, to which huggingface_hub is sent by a test's `monkeypatch`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        server.address = f"http://127.0.0.1:{server.server_address[1]}"
        server.files, server.created, server.paths, server.logins = {}, [], [], set()
        server.refuses = False
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", server.address)
        url = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
