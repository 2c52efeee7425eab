"""A small week of documents, made by the builders that the agents use, and kept in a real index."""

from collections.abc import Iterable
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from alerts.model import KekUse, KekUseStatus, Strength
from cryptocore.batch import Seal
from cryptocore.clock import parse_rfc3339, rfc3339
from cryptocore.events import (
    AuditEvent,
    ChainClose,
    ChainOpen,
    Durability,
    Heartbeat,
    KeyRef,
    Line,
    Operation,
    Outcome,
    OwnerRef,
    Phase,
    Reason,
    Tally,
    encode_line,
)
from cryptocore.keys import KeyState
from streams.index import documents
from streams.index.port import Document
from tests.streams.index.test_documents import ALERT, kek_use, vault_access

WEEK = "2026-W47"
DAY_S = 86_400
START_US = parse_rfc3339("2026-11-16T00:00:00.000000Z")
PREPARED_MS = START_US // 1000 + 7 * DAY_S * 1000 + 6 * 3_600_000


def at(day: float, seconds: float = 0) -> str:
    """A moment of the week: days from its Monday, and seconds."""
    return rfc3339(START_US + round((day * DAY_S + seconds) * 1_000_000))


class Trail:
    """What one process sends; keeps the tallies as the emitter does."""

    def __init__(self, service: str = "billing", number: int = 1) -> None:
        self.service = service
        self.instance = bytes([number]) * 16
        self.documents: list[Document] = []
        self.tallies: dict[tuple[Operation, Outcome], int] = {}
        self._count = 0

    def _ident(self) -> str:
        self._count += 1
        return str(uuid5(NAMESPACE_URL, f"{self.service}/{self.instance.hex()}/{self._count}"))

    def _keep(self, line: Line, moment: str, *, lost: bool = False, suspect: bool = False) -> Line:
        append_ms = parse_rfc3339(moment) // 1000 + 300
        seal = Seal(
            deployment=bytes(16),
            instance=self.instance,
            generation=1,
            partition=0,
            sequence=self._count,
            count=1,
            sealed_at_ms=append_ms - 100,
            previous=b"p" * 32,
            value_sha256=b"v" * 32,
            signer_id=b"s" * 16,
        )
        fragment = documents.batch_fragment(seal, seal.digest, append_ms, suspect)
        raw = encode_line(line)
        if lost:
            return line
        if isinstance(line, AuditEvent):
            self.documents.append(documents.event_document(line, raw, batch=fragment))
        else:
            self.documents.append(documents.control_document(line, raw, batch=fragment))
        return line

    def event(
        self,
        operation: Operation,
        outcome: Outcome | None,
        moment: str,
        *,
        lost: bool = False,
        suspect: bool = False,
        **fields: Any,
    ) -> None:
        given: dict[str, Any] = {
            "id": self._ident(),
            "phase": Phase.SINGLE,
            "operation": operation,
            "outcome": outcome,
            "occurred_at": moment,
            "service": self.service,
            "owner": OwnerRef(tenant_id="t-88", integration_id="crm"),
            "actor": "user:4711",
            "purpose": "crm-sync",
        }
        event = AuditEvent(**given | fields)
        self._keep(event, moment, lost=lost, suspect=suspect)
        if outcome is not None:
            self.tallies[operation, outcome] = self.tallies.get((operation, outcome), 0) + 1

    def decrypt(self, moment: str, outcome: Outcome = Outcome.SUCCEEDED, *, key: KeyRef, **fields: Any) -> None:
        if outcome is not Outcome.SUCCEEDED:
            fields.setdefault("reason", Reason.BAD_TAG if outcome is Outcome.FAILED else Reason.KEY_STATE)
        self.event(Operation.DECRYPT, outcome, moment, key=key, **fields)

    def opened(self, moment: str) -> None:
        self._keep(ChainOpen(id=self._ident(), at=moment, service=self.service, durability=Durability.VOLUME), moment)

    def heartbeat(self, moment: str) -> None:
        line = Heartbeat(id=self._ident(), at=moment, service=self.service, heads=(), tallies=self._tallies())
        self._keep(line, moment)

    def closed(self, moment: str) -> None:
        line = ChainClose(id=self._ident(), at=moment, service=self.service, heads=(), tallies=self._tallies())
        self._keep(line, moment)

    def _tallies(self) -> tuple[Tally, ...]:
        return tuple(Tally(operation=what, outcome=how, count=count) for (what, how), count in self.tallies.items())


def key(number: int = 1, *, version: int = 1, revision: int = 2, state: KeyState = KeyState.ACTIVE) -> KeyRef:
    return KeyRef(id=bytes([number]).hex() * 16, version=version, revision=revision, kind="dek", state=state)


def use(
    number: int,
    moment: str,
    status: KekUseStatus = KekUseStatus.MATCHED,
    *,
    reason: str | None = None,
    **fields: Any,
) -> KekUse:
    strength = Strength.EXACT if status is KekUseStatus.MATCHED else None
    return kek_use(
        id=f"{number:064x}", status=status, strength=strength, reason=reason, time_us=parse_rfc3339(moment), **fields
    )


def kek_documents(uses: Iterable[KekUse]) -> list[Document]:
    """The documents of KEK uses, and of the vault records that they stand on."""
    found = []
    for each in uses:
        found.append(documents.kek_use_document(each, 1, b"\x05" + each.id.encode()))
        if each.status is not KekUseStatus.UNLOGGED:
            record = vault_access(access_id=each.id, time_us=each.time_us, time=rfc3339(each.time_us))
            found.append(documents.vault_access_document(record, {}, each.time_us // 1000 + 240_000))
    return found


def alert(number: int, rule_id: str, /, **fields: Any) -> Document:
    given = ALERT | {"alert_id": f"{number:064x}", "number": f"KT-{1000 + number}", "rule_id": rule_id}
    return documents.alert_document(given | fields, 1, b"\x08" + bytes([number]))
