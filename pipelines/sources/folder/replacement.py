"""Photos that could be read when a run began and can't be any more: a disk fails, someone tidies
up."""

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipelines.sources.base import Lost, SourceError
from pipelines.sources.decoding import UnreadableImage
from pipelines.sources.folder.discovery import printable

Of = TypeVar("Of")


class MissingPhotos:
    """Has another photo take the place of one that is lost, so that a run of days doesn't end with
    one file; too many do end it.

    Threads may use it.

    Args:
        folder: the root, for messages.
        on_lost: called once for each lost photo with (path, reason); None where no photo may stand
            for another, and the first loss is an error.
    """

    def __init__(self, folder: Path, on_lost: Lost | None) -> None:
        self._folder = folder
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._unreadable: set[str] = set()
        self._lost: dict[str, str] = {}
        self._allowed: int | None = None
        self.error: SourceError | None = None

    def settle(self, allowed: int, unreadable: Iterable[str] = ()) -> None:
        """From now on what can't be read is lost, not unreadable from the beginning.

        Args:
            allowed: the number of losses a run bears.
            unreadable: paths that couldn't be read from the beginning, as far as nobody has tried
                to.
        """
        self._allowed = allowed
        self._unreadable.update(unreadable)

    def read(
        self, read: Callable[[str], Of], paths: Sequence[str], index: int, labels: np.ndarray | None
    ) -> Of:
        """Returns photo `index`; if it is lost, the next one of its label that can be read.

        Args:
            read: path -> pixels, or what else is wanted of a photo that can be read.
            paths: of one split.
            index: into `paths`.
            labels: of the split, or None.

        Raises:
            UnreadableImage: it can't be read, before `settle`; or couldn't be from the beginning.
            SourceError: it is lost, and with it more than are allowed. Then `error` is set as well.
        """
        try:
            return read(paths[index])
        except UnreadableImage as error:
            if self._allowed is None:
                with self._lock:
                    self._unreadable.add(paths[index])
            if paths[index] in self._unreadable:
                raise
            self._note(paths[index], str(error))
        for step in range(1, len(paths)):
            other = (index + step) % len(paths)
            if paths[other] in self._unreadable or (
                labels is not None and labels[other] != labels[index]
            ):
                continue
            try:
                return read(paths[other])
            except UnreadableImage as error:
                self._note(paths[other], str(error))
        raise self._stop(
            f"{self._folder}: not one photo is left that could stand for {printable(paths[index])}"
        )

    def _note(self, path: str, reason: str) -> None:
        """Raises SourceError when it is one too many."""
        name = printable(path)
        if self._on_lost is None:
            raise self._stop(
                f"{self._folder / name}: {reason}. It could be read when the run began"
            )
        with self._lock:
            if path in self._lost:
                return
            self._lost[path] = reason
            self._on_lost(name, reason)
            if len(self._lost) > self._allowed:
                examples = "; ".join(
                    f"{printable(lost)}: {why}" for lost, why in list(self._lost.items())[:5]
                )
                raise self._stop(
                    f"{self._folder}: {len(self._lost):,} photos that could be read when the run "
                    "began can't be any more; with those that "
                    "couldn't be then they are more than data.max_unreadable_fraction allows. For "
                    f"example {examples}"
                )

    def _stop(self, text: str) -> SourceError:
        self.error = SourceError(text)
        return self.error
