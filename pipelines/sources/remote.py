"""Files behind a URL, read through fsspec: object stores, web servers, Hugging Face's hub."""

import atexit
import functools
import hashlib
import io
import logging
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar, cast

import fsspec
from fsspec.asyn import sync

from pipelines.sources.base import SourceError

T = TypeVar("T")
_STAMPS = (
    *("ETag", "etag", "xet_hash", "blob_id"),
    *("mtime", "LastModified", "last_modified", "updated", "Last-Modified"),
)
"""Where file systems of fsspec state what changes with a file's content."""
logger = logging.getLogger(__name__)

READ_SECONDS = 60.0
"""Seconds that a server may take to answer one request. A listing is one for each 1,000 files or
folder, and has no limit but those that the packages set to each."""
_LISTINGS = ("find", "glob")
GIVE_UP_SECONDS = 180.0
"""Seconds for which a request that fails is repeated, with growing pauses."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_READAHEAD = 2**18
"""Bytes that `RemotePath.open` reads at once. Headers lie between the images that they describe:
what is smaller than this is cheaper to read than to ask for the next header."""


_given_up: set[int] = set()
"""File systems that were waited for in vain; each of many images would wait as long again."""


_reported: set[int] = set()
"""Those that are waited for: one line says so, not one of each image."""
_cache_lock = threading.Lock()
_download_locks: dict[str, threading.Lock] = defaultdict(threading.Lock)


class Unreachable(SourceError):
    """A server didn't give a file for `GIVE_UP_SECONDS`, or refuses to."""


class RemotePath:
    """A file or folder behind a URL, with the few methods of `pathlib.Path` that sources need.

    Each request is repeated while the server doesn't answer, or answers that it is busy. A file
    that isn't there is a `FileNotFoundError`; any other failure that lasts, `Unreachable`.

    Args:
        url: as fsspec understands it.
        key: its key or option, for messages.

    Raises:
        SourceError: the package that reads such URLs is missing, or there is none.
    """

    def __init__(self, url: str, key: str = "data.root") -> None:
        self._url = url.rstrip("/")
        try:
            self.fs, self.path = fsspec.core.url_to_fs(self._url)
        except ImportError as error:
            raise SourceError(
                f"{key}: {url}: a package is missing that reads such addresses: {error}"
            ) from error
        except Exception as error:  # of an unknown protocol, and what the packages raise
            raise SourceError(f"{key}: {url}: {_reason(error)}") from error

    def __str__(self) -> str:
        return self._url

    def __truediv__(self, name: str) -> Self:
        return self.at(f"{self.path}/{name}")

    @property
    def is_cached(self) -> bool:
        """True if files are downloaded whole at their first use, as `simplecache::` does."""
        return "::" in self._url

    def at(self, path: str) -> Self:
        """Returns another path of the same file system, given in full as fsspec writes it."""
        other = object.__new__(type(self))
        other.fs, other.path = self.fs, path
        found = self.path in self._url
        other._url = self._url.replace(self.path, path, 1) if found else path
        return other

    def read(self, start: int | None = None, end: int | None = None) -> bytes:
        """Returns a file's bytes from `start` to `end`, fewer where it ends before."""
        options: dict[str, Any] = {"start": start, "end": end}
        if not self.fs.async_impl and not self.is_cached:
            options["cache_type"] = "none"  # what is read ahead would be thrown away
        try:
            data = self._call("cat_file", self.path, **options)
        except _BeyondEnd:
            return b""
        if start is not None and end is not None and len(data) > end - start:
            raise Unreachable(
                f"{self}: the server sends whole files, not parts of them. With simplecache:: "
                "before the address each is downloaded once"
            )
        return data

    def open(self, size: int, readahead: int | None = None) -> BinaryIO:
        """Returns a file of `size` bytes, of which only the parts that are used are read.

        Args:
            size: in bytes.
            readahead: bytes that a request asks for at least; 0: each read is a request of its own.
        """
        file = _Ranges(self, size)
        if readahead == 0:
            return cast(BinaryIO, file)
        return io.BufferedReader(file, readahead or _READAHEAD)

    def local_copy(self) -> str:
        """Returns the path of the file on this disk, for a library that takes no other.

        It is downloaded at the first call, and deleted at the end of the process.
        """
        if self.is_cached:
            with _cache_lock:
                return self._persistently(lambda: fsspec.open_local(self._url))
        with _cache_lock:
            target = os.path.join(_downloads(), hashlib.sha256(self._url.encode()).hexdigest())
            lock = _download_locks[target]
        with lock:  # two threads would download the same file
            if not os.path.exists(target):
                part = f"{target}.part"
                self._persistently(lambda: self.fs.get_file(self.path, part))
                os.replace(part, target)
        return target

    def info(self) -> dict[str, Any]:
        """Returns fsspec's facts about a file: `name`, `size` and others."""
        return self._call("info", self.path)

    def glob(self, pattern: str) -> dict[str, dict[str, Any]]:
        """Returns fsspec's facts of the files that a pattern names, by their full paths."""
        return self._call("glob", pattern, detail=True)

    def find(self) -> dict[str, dict[str, Any]]:
        """Returns fsspec's facts of all files below a folder, by their full paths."""
        return self._call("find", self.path, detail=True)

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        if self.is_cached:  # two threads would download the same file
            with _cache_lock:
                return self._persistently(lambda: getattr(self.fs, method)(*args, **options))
        if self.fs.async_impl:
            function = getattr(self.fs, f"_{method}")
            seconds = None if method in _LISTINGS else READ_SECONDS
            return self._persistently(
                lambda: sync(self.fs.loop, function, *args, timeout=seconds, **options)
            )
        return self._persistently(lambda: getattr(self.fs, method)(*args, **options))

    def _persistently(self, call: Callable[[], T]) -> T:
        """Calls a function again and again while it fails for a reason that may pass."""
        start, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                result = call()
                _given_up.discard(id(self.fs))
                _reported.discard(id(self.fs))
                return result
            except Exception as error:
                if 416 in (_status(error), _status(error.__cause__)):
                    raise _BeyondEnd(str(self)) from error
                passes = _may_pass(error)
                if isinstance(error, FileNotFoundError) and not passes:
                    raise
                waited = time.monotonic() - start
                if not passes or waited + pause > GIVE_UP_SECONDS or id(self.fs) in _given_up:
                    _given_up.add(id(self.fs))
                    tried = f" for {waited:.0f} s" if passes and waited >= 1 else ""
                    raise Unreachable(f"{self} can't be read{tried}: {_reason(error)}") from error
                if id(self.fs) not in _reported:
                    _reported.add(id(self.fs))
                    logger.warning(
                        "%s: %s; trying again for %.0f s", self, _reason(error), GIVE_UP_SECONDS
                    )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


class _BeyondEnd(OSError):
    """A server says that a file ends before what was asked for."""


Location = Path | RemotePath
"""A file or folder, on this disk or behind a URL."""


class _Ranges(io.RawIOBase):
    """A remote file, of which each read is a request."""

    def __init__(self, path: RemotePath, size: int) -> None:
        self._path, self._size, self._position = path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        data = self._path.read(self._position, end) if self._position < end else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def stamp(info: dict[str, Any]) -> str:
    """Returns text that changes with a file's content; empty where the server states none."""
    return next((str(info[key]) for key in _STAMPS if info.get(key)), "")


def _may_pass(error: BaseException) -> bool:
    """Returns whether a request that failed may succeed later."""
    status = _status(error)
    if status is not None:
        return status in (408, 425, 429) or status >= 500
    if isinstance(error, FileNotFoundError):  # fsspec raises it for any status of a web server
        cause = error.__cause__
        return type(cause).__module__.startswith("aiohttp") and _may_pass(cause or error)
    permanent = (PermissionError, ImportError, NotImplementedError, ValueError, TypeError)
    refused = "Credentials" in type(error).__name__ or str(error).startswith("Forbidden")  # gcsfs
    return not isinstance(error, permanent) and not refused


def _status(error: BaseException | None) -> int | None:
    """Returns the HTTP status that a request failed with; None where the error has none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # of botocore
        found = [response.get("ResponseMetadata", {}).get("HTTPStatusCode")]
    else:
        holders = (error, error, error, response)
        names = ("status", "code", "status_code", "status_code")  # aiohttp, gcsfs, Azure, the hub
        found = [getattr(of, name, None) for of, name in zip(holders, names, strict=True)]
    return next((int(one) for one in found if str(one).isdecimal() and int(one) >= 400), None)


@functools.cache
def _downloads() -> str:
    """Returns the folder of files that were downloaded whole."""
    folder = tempfile.mkdtemp(prefix="byol_tf-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer within {READ_SECONDS:.0f} s"
    return " ".join(str(error).split())[:300] or type(error).__name__
