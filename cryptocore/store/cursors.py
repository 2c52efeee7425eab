"""How far long work has come, in the database: so that it goes on after a crash, and several processes share it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlalchemy import Connection, insert, select, update

from cryptocore.clock import Clock
from cryptocore.errors import ConfigurationError
from cryptocore.store.key_store import database_ms
from cryptocore.store.rotation_tables import WORK_CURSOR

Item = TypeVar("Item")

START: Final = b""
MAX_NAME: Final = 512


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        total: items that waited when the run began, where that is known.
        done: moved by this run.
        skipped: needed nothing, or somebody else moved them meanwhile.
        failed: each left its event.
    """

    total: int | None = None
    done: int = 0
    skipped: int = 0
    failed: int = 0


def read(name: str) -> Callable[[Connection], bytes]:
    """Ask how far the work of this name has come; `START` where it has not begun."""
    query = select(WORK_CURSOR.c.cursor).where(WORK_CURSOR.c.name == name)
    return lambda connection: connection.execute(query).scalar() or START


def begin(name: str) -> Callable[[Connection], None]:
    """Make the cursor of the work of this name, unless there is one; `StoreConflict`: somebody just made it."""
    if not 1 <= len(name) <= MAX_NAME:
        raise ConfigurationError(f"the name of a piece of work has 1 to {MAX_NAME} characters")

    def write(connection: Connection) -> None:
        if connection.execute(select(WORK_CURSOR.c.name).where(WORK_CURSOR.c.name == name)).first() is None:
            values = {"name": name, "cursor": START, "moved_ms": database_ms(connection)}
            connection.execute(insert(WORK_CURSOR).values(**values))

    return write


def move(name: str, cursor: bytes) -> Callable[[Connection], None]:
    """Say that the work of this name, which has begun, has come so far."""

    def write(connection: Connection) -> None:
        values = {"cursor": cursor, "moved_ms": database_ms(connection)}
        connection.execute(update(WORK_CURSOR).where(WORK_CURSOR.c.name == name).values(**values))

    return write


def claim(
    name: str, find: Callable[[Connection, bytes], Sequence[Item]], cursor_of: Callable[[Item], bytes]
) -> Callable[[Connection], Sequence[Item]]:
    """Take the next items for this process alone: the cursor is moved past them in the transaction that finds them.

    Who dies with claimed items leaves them undone; whoever comes to the end looks from the start once more.

    Args:
        name: of the work, which has begun.
        find: the items behind a cursor, in its order.
        cursor_of: an item.
    """
    touch = update(WORK_CURSOR).where(WORK_CURSOR.c.name == name).values(moved_ms=WORK_CURSOR.c.moved_ms)

    def work(connection: Connection) -> Sequence[Item]:
        connection.execute(touch)  # takes the lock before anything is read
        found = find(connection, read(name)(connection))
        if found:
            move(name, cursor_of(found[-1]))(connection)
        return found

    return work


class Pace:
    """Not more than so many items a second."""

    def __init__(self, per_second: float | None, clock: Clock) -> None:
        if per_second is not None and per_second <= 0:
            raise ConfigurationError("a pace is above 0 a second")
        self._step = 0.0 if per_second is None else 1 / per_second
        self._clock = clock
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for the next turn."""
        if not self._step:
            return
        now = self._clock.monotonic()
        at = max(now, self._next)
        self._next = at + self._step
        if at > now:
            await asyncio.sleep(at - now)
