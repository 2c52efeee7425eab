"""Positions that outlive a power cut: a small file replaced as a whole, and a table for many files."""

import os
import sqlite3
import stat
from pathlib import Path

import msgspec
from msgspec import Struct

from cryptocore.errors import ConfigurationError

_encode = msgspec.json.Encoder().encode


class Cursor(Struct, frozen=True, forbid_unknown_fields=True):
    """All rows of a table that were ingested before this moment have been taken."""

    table: str
    ingested_before_us: int


def load_cursor(path: Path) -> Cursor | None:
    """Read a cursor; None where there is none yet.

    Raises:
        ConfigurationError: the file is none of ours; whoever removes it decides to read again from the start.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Cursor)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"{path}: not a cursor: {error}") from error


def save_cursor(path: Path, cursor: Cursor) -> None:
    """Replace the file: after this the old one or the new one is there, whatever happens."""
    replace_file(path, _encode(cursor) + b"\n")


def replace_file(path: Path, content: bytes) -> None:
    """Put a whole file in place of the old one; on return it outlives a power cut. Its mode stays what it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(content)
        if path.exists():
            os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Position(Struct, frozen=True, kw_only=True):
    """How far a file has been read, and what it looked like then.

    `offset` bytes and `lines` lines are taken. `head` and `tail` are digests of the first bytes and of the last ones
    before the offset: where they no longer hold, it is another file. `whole`: a document, read at once or not at all.
    `cut`: it goes on with a line that is not whole; `told`: that this stays so was said.
    """

    offset: int = 0
    lines: int = 0
    size: int = 0
    mtime_ns: int = 0
    head: str = ""
    tail: str = ""
    whole: bool = False
    cut: bool = False
    told: bool = False


class Positions:
    """The positions of all files, by their absolute path."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS positions (path TEXT PRIMARY KEY, position BLOB NOT NULL) WITHOUT ROWID"
        )

    def get(self, path: Path) -> Position | None:
        found = self._database.execute("SELECT position FROM positions WHERE path = ?", (_name(path),)).fetchone()
        return None if found is None else msgspec.json.decode(found[0], type=Position)

    def save(self, path: Path, position: Position) -> None:
        """Keep it, durably on return."""
        self._database.execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", (_name(path), _encode(position)))

    def close(self) -> None:
        self._database.close()


def _name(path: Path) -> str:
    """Name a file as text; what is no UTF-8 in a name is kept as Python escapes it."""
    return os.fsencode(path.absolute()).decode(errors="backslashreplace")
