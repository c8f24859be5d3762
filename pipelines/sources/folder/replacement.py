"""Replaces photos that become unreadable during a run."""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from pipelines.sources.base import OnLost, SourceError
from pipelines.sources.folder.discovery import printable
from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.remote import Location

T = TypeVar("T")


class LostPhotos:
    """Replaces each lost photo by another one, so that one file doesn't end a run of days.

    Too many lost photos do end it. Several threads may use it.

    Args:
        folder: the root, for messages.
        on_lost: called once for each lost photo with (path, reason); None: no photo is replaced,
            and the first one lost is an error.

    Attributes:
        failure: the error that ended the run, or None. No photo is read then any more.
        by_name: the reason for each lost photo, by its printable path.
    """

    def __init__(self, folder: Location, on_lost: OnLost | None) -> None:
        self._folder = folder
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._unreadable: set[str] = set()
        self.by_name: dict[str, str] = {}
        self._allowed: int | None = None
        self.failure: SourceError | None = None

    def begin(self, allowed: int, unreadable: Iterable[str] = ()) -> None:
        """Treats photos that can't be read from now on as lost, not as unreadable from the start.

        Args:
            allowed: number of photos that may be lost.
            unreadable: paths that couldn't be read at the start, in so far as `read` wasn't called
                for them.
        """
        self._allowed = allowed
        self._unreadable.update(unreadable)

    def read(
        self, read: Callable[[str], T], paths: Sequence[str], index: int, labels: np.ndarray | None
    ) -> T:
        """Reads a photo; if it is lost, the next readable one of its label.

        Args:
            read: path -> pixels, or another property of a readable photo.
            paths: of one split.
            index: into `paths`.
            labels: of the split, or None.

        Returns:
            What `read` returns.

        Raises:
            UnreadableImage: it was unreadable from the start, or `begin` hasn't been called yet.
            SourceError: it is lost, and with it more photos than are allowed. It is also stored in
                `failure`.
        """
        if self.failure is not None:
            raise self.failure
        try:
            return read(paths[index])
        except SourceError as error:  # a server can't be reached
            self.failure = error
            raise
        except UnreadableImage as error:
            if self._allowed is None:
                with self._lock:
                    self._unreadable.add(paths[index])
            if paths[index] in self._unreadable:
                raise
            self._record(paths[index], str(error))
        for offset in range(1, len(paths)):
            other = (index + offset) % len(paths)
            if paths[other] in self._unreadable or (
                labels is not None and labels[other] != labels[index]
            ):
                continue
            try:
                return read(paths[other])
            except UnreadableImage as error:
                self._record(paths[other], str(error))
        raise self._fail(
            f"{self._folder}: no readable photo could replace {printable(paths[index])}"
        )

    def _record(self, path: str, reason: str) -> None:
        """Counts and reports a lost photo. Raises SourceError when it is one too many."""
        name = printable(path)
        if self._on_lost is None:
            raise self._fail(
                f"{self._folder / name}: {reason}. It could be read when the run began"
            )
        with self._lock:
            if name in self.by_name:
                return
            self.by_name[name] = reason
            self._on_lost(name, reason)
            if self._allowed is not None and len(self.by_name) > self._allowed:
                examples = "; ".join(
                    f"{lost}: {why}" for lost, why in list(self.by_name.items())[:5]
                )
                raise self._fail(
                    f"{self._folder}: {len(self.by_name):,} photos can't be read that passed the "
                    "check at the start; with those that didn't they are more than "
                    f"data.max_unreadable_fraction allows. For example {examples}"
                )

    def _fail(self, message: str) -> SourceError:
        self.failure = SourceError(message)
        return self.failure
