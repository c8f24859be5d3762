"""Small shards in the layouts of others, and a web server that fails as told."""

import http.server
import io
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

PATTERN = "photos-{000..002}.tar"
"""The shards of `write_shards`."""


def jpeg(seed: int, size: tuple[int, int] = (12, 10)) -> bytes:
    """A JPEG whose pixels are a function of the seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def webdataset(first: int, count: int) -> bytes:
    """A shard of JPEGs with a class each: their numbers modulo 2."""
    members = {}
    for number in range(first, first + count):
        members[f"{number:06}.jpg"] = jpeg(number)
        members[f"{number:06}.cls"] = str(number % 2).encode()
    return tar(members)


def write_shards(folder: Path, shards: int = 3, images: int = 8) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"photos-{number:03}.tar" for number in range(shards)]
    for number, path in enumerate(paths):
        path.write_bytes(webdataset(number * images, images))
    return paths


def same(first, second) -> bool:
    """Returns whether two sets of images have the same pixels in the same order."""
    return len(first) == len(second) and all(map(np.array_equal, first, second))


class Server:
    """A web server of the files in a folder, with byte ranges.

    Attributes:
        url: of the folder.
        requests: (method, path, range) of each so far.
        fault: called with the path of each request; returns a status to answer with, or None. It
            may sleep.
        ranges: whether parts of files are sent.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.requests, self.ranges = root, [], True
        self.fault: Callable[[str], int | None] = lambda path: None
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                part = self.headers.get("Range")
                server.requests.append((self.command, self.path, part))
                status = server.fault(self.path)
                file = server.root / self.path.lstrip("/")
                if status is None and not file.is_file():
                    status = 404
                if status is not None:
                    self._answer(status, b"")
                    return
                if part and server.ranges:
                    first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", part).groups())
                    if first >= file.stat().st_size:
                        self._answer(416, b"")
                        return
                    with file.open("rb") as opened:
                        opened.seek(first)
                        self._answer(206, opened.read(last + 1 - first))
                else:
                    self._answer(200, file.read_bytes())

            def _answer(self, status: int, data: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def refuse(self, count: int) -> None:
        """Answers 503 to so many requests, from the next one on."""
        refused = iter(range(count))
        self.fault = lambda path: None if next(refused, None) is None else 503


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    server = Server(root)
    thread = threading.Thread(target=server._server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server._server.shutdown()
        server._server.server_close()
