"""Rotations as work that ends: new version, re-encrypt, old version retired, its wrapped DEK overwritten; by a date.

The row says when a rotation was opened, when it is due and what the owner last reported. Which step it has reached is
read from the old version's signed record: nobody finishes a rotation by writing a column.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Select, insert, select, update

from cryptocore.envelope import KEY_ID_SIZE, Owner
from cryptocore.keys import KeyReason, KeyState
from cryptocore.store.key_store import KeyVersion, database_ms
from cryptocore.store.rotation_tables import ROTATION

DAY_MS: Final = 24 * 3600 * 1000
DUE_MS: Final = 30 * DAY_MS
DUE_AFTER_COMPROMISE_MS: Final = 7 * DAY_MS
FINDING: Final = "rotation_unfinished"
"""What a rotation past its date is called."""

_RETIRED: Final = frozenset({KeyState.REVOKED, KeyState.ARCHIVED, KeyState.DESTROYED})


class RotationStep(StrEnum):
    """What a rotation waits for."""

    REENCRYPT = "reencrypt"
    RETIRE = "retire"
    OVERWRITE = "overwrite"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Rotation:
    """One old version on its way out.

    Attributes:
        key_id: with `version`, the old version.
        owner: of the old version.
        next_key_id: with `next_version`, the version that took its place; another key where the owner changed.
        rows_left: ciphertexts under the old version, as the owner last reported; None: not reported yet.
        state: of the old version.
        overwritten: its wrapped DEK is gone.
    """

    id: str
    key_id: str
    version: int
    owner: Owner
    next_key_id: str
    next_version: int
    reason: KeyReason
    opened_ms: int
    due_ms: int
    rows_left: int | None
    reported_ms: int | None
    state: KeyState
    overwritten: bool

    @property
    def step(self) -> RotationStep:
        """What comes next."""
        if self.overwritten:
            return RotationStep.FINISHED
        if self.rows_left != 0 and self.state is not KeyState.DESTROYED:
            return RotationStep.REENCRYPT
        return RotationStep.OVERWRITE if self.state in _RETIRED else RotationStep.RETIRE

    def unfinished(self, now_ms: int) -> bool:
        """Say whether it is past its date: `rotation_unfinished`."""
        return self.step is not RotationStep.FINISHED and now_ms >= self.due_ms


def due_after(reason: KeyReason) -> int:
    """Say how many milliseconds a rotation may take."""
    return DUE_AFTER_COMPROMISE_MS if reason is KeyReason.COMPROMISE_SUSPECTED else DUE_MS


def opening(
    old: KeyVersion, new: KeyVersion, reason: KeyReason, ids: Callable[[int], bytes]
) -> Callable[[Connection], None]:
    """Open the rotation of an old version; one that is open already goes on towards the new version, due sooner if so.

    Returns:
        What writes it in the transaction that supersedes the old version; its dates are by the database's clock.
    """

    def write(connection: Connection) -> None:
        now_ms = database_ms(connection)
        where = (ROTATION.c.key_id == old.key_id) & (ROTATION.c.version == old.number)
        known = connection.execute(select(ROTATION.c.due_ms).where(where)).scalar()
        towards: dict[str, Any] = {
            "next_key_id": new.key_id,
            "next_version": new.number,
            "reason": reason.value,
            "due_ms": now_ms + due_after(reason),
        }
        if known is not None:
            towards["due_ms"] = min(known, towards["due_ms"])
            connection.execute(update(ROTATION).where(where).values(**towards))
            return
        connection.execute(
            insert(ROTATION).values(
                rotation_id=ids(KEY_ID_SIZE),
                key_id=old.key_id,
                version=old.number,
                owner=old.owner.encode(),
                opened_ms=now_ms,
                **towards,
            ),
        )

    return write


def reporting(rotation_id: bytes, rows_left: int) -> Callable[[Connection], None]:
    """Write what the owner reports."""

    def write(connection: Connection) -> None:
        where = ROTATION.c.rotation_id == rotation_id
        connection.execute(
            update(ROTATION).where(where).values(rows_left=rows_left, reported_ms=database_ms(connection))
        )

    return write


def finishing(key_id: bytes, version: int) -> Callable[[Connection], None]:
    """Take a rotation, if there is one, off the list of work: the old version's wrapped DEK is gone."""

    def write(connection: Connection) -> None:
        where = (ROTATION.c.key_id == key_id) & (ROTATION.c.version == version) & ROTATION.c.finished_ms.is_(None)
        connection.execute(update(ROTATION).where(where).values(finished_ms=database_ms(connection)))

    return write


def by_id(rotation_id: bytes) -> Select[Any]:
    """Ask for one rotation."""
    return select(ROTATION).where(ROTATION.c.rotation_id == rotation_id)


def of_version(key_id: bytes, version: int) -> Select[Any]:
    """Ask for the rotation of an old version."""
    return select(ROTATION).where((ROTATION.c.key_id == key_id) & (ROTATION.c.version == version))


def listed(*, owner: Owner | None, due_before_ms: int | None, finished: bool) -> Select[Any]:
    """Ask for rotations, those due first in front."""
    query = select(ROTATION).order_by(ROTATION.c.due_ms, ROTATION.c.rotation_id)
    if owner is not None:
        query = query.where(ROTATION.c.owner == owner.encode())
    if due_before_ms is not None:
        query = query.where(ROTATION.c.due_ms <= due_before_ms)
    return query if finished else query.where(ROTATION.c.finished_ms.is_(None))


def rows(query: Select[Any]) -> Callable[[Connection], Sequence[RowMapping]]:
    """Run a query in a transaction."""
    return lambda connection: connection.execute(query).mappings().all()


def rotation_of(row: RowMapping, old: KeyVersion) -> Rotation:
    """Read a row beside the old version's record, which says how far it is.

    Raises:
        ValueError: its reason is none.
    """
    return Rotation(
        id=row["rotation_id"].hex(),
        key_id=row["key_id"].hex(),
        version=row["version"],
        owner=old.owner,
        next_key_id=row["next_key_id"].hex(),
        next_version=row["next_version"],
        reason=KeyReason(row["reason"]),
        opened_ms=row["opened_ms"],
        due_ms=row["due_ms"],
        rows_left=row["rows_left"],
        reported_ms=row["reported_ms"],
        state=old.record.state,
        overwritten=old.record.state is KeyState.DESTROYED and not old.wrapped_dek,
    )
