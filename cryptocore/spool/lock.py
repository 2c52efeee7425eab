"""Who owns a spool file: a lock beside it, held for as long as the process lives.

The lock is `flock` on a file of its own: SQLite takes its locks on the database, and closing any descriptor of that
file would drop them. It belongs to the open file, so two emitters in one process exclude each other too. A forked
child closes its copy at once; otherwise it would keep a dead parent's spool from being adopted.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final
from weakref import WeakSet

SUFFIX: Final = ".spool"
_LOCK_SUFFIX: Final = ".lock"
_SQLITE_SUFFIXES: Final = ("", "-wal", "-shm")


class SpoolLock:
    """An exclusive hold on one spool file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        _held.add(self)

    @classmethod
    def take(cls, path: Path) -> "SpoolLock | None":
        """Lock the spool at `path`, which need not exist yet; None while somebody else holds it."""
        lock_path = path.with_suffix(_LOCK_SUFFIX)
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if not _is_same(descriptor, lock_path):  # its owner removed it between our open and our lock
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def release(self) -> None:
        """Let go; the file may now be adopted."""
        _held.discard(self)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Delete the spool, whose connection is closed, then the lock."""
        for suffix in _SQLITE_SUFFIXES:
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.path.with_suffix(_LOCK_SUFFIX).unlink(missing_ok=True)
        self.release()


def spool_path(directory: Path, service: str, instance: bytes) -> Path:
    """Name the file of one process."""
    return directory / f"{service}.{instance.hex()}{SUFFIX}"


def spools_of(directory: Path, service: str) -> list[Path]:
    """List a service's spool files, those in use too, and those of which only a lock is left."""
    found = {path.with_suffix(SUFFIX) for suffix in (SUFFIX, _LOCK_SUFFIX) for path in directory.glob(f"*{suffix}")}
    return sorted(path for path in found if path.name.rsplit(".", 2)[0] == service)


def is_held(path: Path) -> bool:
    """Say whether a process holds the spool at `path`; nothing is made or kept, a hold of ours is over at once."""
    try:
        descriptor = os.open(path.with_suffix(_LOCK_SUFFIX), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


_held: WeakSet[SpoolLock] = WeakSet()


def _drop_in_child() -> None:
    for lock in list(_held):
        with contextlib.suppress(OSError):
            lock.release()


os.register_at_fork(after_in_child=_drop_in_child)
