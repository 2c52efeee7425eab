"""Key records signed anew: when a signer is replaced, its records go over to the new one, each held against the trail.

A record is believed by its signature and by the time that it names itself. Whoever has had the old signer's private key
could date a record of his own before the theft. The monitor's trail says otherwise: what it was told, and when, is
stamped by the broker.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from cryptocore.audit import Refusal, Subject
from cryptocore.care.inventory import Inventory
from cryptocore.core_keys import raw_key_id
from cryptocore.events import Operation
from cryptocore.keys import KeyReason, KeyState
from cryptocore.records import KeyRecord
from cryptocore.registry import Registry
from cryptocore.store.key_store import KeyVersion, StoreConflict

if TYPE_CHECKING:
    from cryptocore.parts import Parts

OPERATION: Final = Operation.REWRAP
"""Of the event: like a rewrap, it changes neither the state of the version nor why it has it."""


@dataclass(frozen=True, slots=True)
class Told:
    """The newest act on a key version that the trail knows.

    Attributes:
        digest: SHA-256 of the event's line, where the trail still has its bytes.
        told_ms: when the monitor's log took the event, by the broker's clock.
        suspect: the monitor knew by then that its sender's signer was in other hands.
    """

    revision: int
    state: KeyState | None
    digest: bytes | None
    told_ms: int
    suspect: bool = False


class Trail(Protocol):
    """Who keeps what services told of keys: the monitor's index."""

    async def newest(self, key_id: str, number: int) -> Told | None:
        """Tell the act with the highest revision of a key version; None: it knows of none."""


@dataclass(slots=True)
class Resigned:
    """What became of a run.

    Attributes:
        done: key versions signed anew, or that would be.
        left: those that the signer has signed already, and destroyed ones.
        refused: by key version, why it was not signed anew.
    """

    done: list[str] = field(default_factory=list)
    left: int = 0
    refused: dict[str, str] = field(default_factory=dict)


class Resign:
    """One run."""

    def __init__(self, parts: "Parts", trail: Trail | None, subject: Subject) -> None:
        self._parts = parts
        self._trail = trail
        self._subject = subject

    async def run(self, key_id: str | None, *, apply: bool) -> Resigned:
        """Go through the store.

        1. Its record is believed, and another signer's.
        2. The trail's newest word of the version agrees with it.
        3. A revision that differs in its signer only, with its event.

        Raises:
            CoreError: store or trail do not answer.
        """
        found = Resigned()
        parts = self._parts
        parts.lifecycle.revisions.check_signer()
        async for name, version in self._versions(key_id):
            # 1
            if isinstance(version, str):
                found.refused[name] = version
                continue
            signed_here = version.record.signer_id == parts.signer.signer_id
            if signed_here or version.record.state is KeyState.DESTROYED:
                found.left += 1
                continue
            # 2
            problem = await self._compared(version)
            if problem is not None:
                found.refused[name] = problem
                continue
            # 3
            if apply and (problem := await self._signed(version)) is not None:
                found.refused[name] = problem
                continue
            found.done.append(name)
        return found

    async def _versions(self, key_id: str | None) -> AsyncIterator[tuple[str, KeyVersion | str]]:
        if key_id is not None:
            raw = raw_key_id(key_id)
            for version in await self._parts.read(self._parts.store.versions, raw):
                yield f"{raw.hex()}/{version.number}", version
            return
        async for one in Inventory(self._parts).each():
            name = f"{one.key_id}/{one.number}"
            yield name, one.version or f"its record is not to be believed: {one.problem}"

    async def _compared(self, version: KeyVersion) -> str | None:
        if self._trail is None:
            return None
        told = await self._trail.newest(version.key_id.hex(), version.number)
        return _disagreement(version.record, told, self._parts.registry)

    async def _signed(self, version: KeyVersion) -> str | None:
        parts = self._parts
        change = parts.lifecycle.revisions.change(version, {}, OPERATION, self._subject, motive=KeyReason.OPERATOR)
        try:
            await parts.lifecycle.apply([change])
        except StoreConflict:
            return "it was changed meanwhile"
        except Refusal as refusal:
            raise refusal.public() from None
        parts.relay.wake()
        return None


def _disagreement(record: KeyRecord, told: Told | None, registry: Registry) -> str | None:
    """Say in what the trail and a record differ; a record dates itself, the broker dates the event."""
    if told is None:
        return "the trail knows nothing of it"
    signer = registry.get(record.signer_id)
    if told.suspect or signer is None or signer.suspect(told.told_ms):
        return "its event came when its signer's key was in other hands"
    if told.revision != record.revision:
        return f"the trail knows revision {told.revision}, the store shows {record.revision}"
    if told.state not in (None, record.state):
        return f"the trail says {told.state}, the store {record.state}"
    if told.digest not in (None, record.event_sha256):
        return "the trail was told of this revision by another event"
    return None
