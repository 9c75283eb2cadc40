"""Whom the committer tells of what became of the batches. The engine is one."""

from typing import Protocol

from kantad.engine.pending import Applied
from kantad.store.log import Broken
from kantad.values.errors import Problem


class Snapshotting(Protocol):
    """See `Snapshots`."""

    def due(self) -> bool:
        """Whether the log has grown so much that a snapshot in it is worth it."""

    def payload(self) -> bytes:
        """A snapshot payload of what is written; nothing is in flight."""

    def failed(self) -> None:
        """There was no room for the snapshot, which loses nothing."""


class Owner(Protocol):
    """Whom the committer tells; the engine. All are called on the event loop."""

    def published(self, changes: list[Applied], end: int) -> None:
        """These are written, up to this byte of the file; under `durable` they are synced, too."""

    def synced(self, snapshot: bool, end: int) -> None:
        """The file is synced up to this byte: all that was published, and the snapshot, if that is what was written."""

    def failed(self, changes: list[Applied], problem: Problem) -> None:
        """These, the newest changes, found no room and must be taken back."""

    def broke(self, error: Broken) -> None:
        """The disk failed; the process must stop."""

    @property
    def snapshots(self) -> Snapshotting:
        """Who says when one is to be written into the file, and what stands in it."""
