"""The vault agent: one message of `vault-access` into a document, a use for the join, findings. Pure.

1. decode and normalise; what cannot be read or must not be trusted is quarantined with its reason;
2. drop what was seen before: each access counts once, however many diagnostic settings delivered it;
3. index the record; 4. what was done with a key or to it goes to the join; 5. rules, and one finding for all operations
nobody knows; an act that the join judges, or that the other log told of, is left alone; 6. what somebody did goes to
the who agent, whatever it was. Whether an event accounts for a use or an act is the join's to say; with a declaration
of vaults, the sources agent judges which of them are silent.
"""

from collections import deque
from typing import Final

import msgspec
from msgspec import Raw, Struct

from alerts import rules
from alerts.model import AccessClass, Evidence, Finding, KekAct, Severity, VaultAccess
from alerts.system import system_finding
from alerts.thresholds import HOUR_MS, Limits
from streams import rejected
from streams.conduct import observations
from streams.feeds.vaults import VaultDeclarations
from streams.findings import FindingBook
from streams.index.documents import vault_access_document
from streams.index.port import DocKind, Document
from streams.joining import correlate
from streams.joining.kek_history import tells
from streams.messages import CORRELATE, VAULT_ACCESS, Effects, Message
from streams.presence import sightings
from streams.state import Kind, State
from streams.vaultlogs import messages, twins
from streams.vaultlogs.normalise import Reason, VaultRecordRejected, normalise

METER: Final = b"vault"
QUARANTINE: Final = "rejected_rate"
QUARANTINE_SHARE: Final = 0.001
"""Above 0.1 % of an hour's records, what cannot be read is a blind spot that somebody must know of."""
MAX_UNKNOWN: Final = 64
"""Names of unknown operations that the meter keeps; the finding is one for all."""
PRUNE_MS: Final = HOUR_MS
_decode = msgspec.json.Decoder().decode


class Seen(Struct, frozen=True, array_like=True):
    """An access that was taken, by its access id."""

    append_ms: int


class VaultMeter(Struct, kw_only=True, omit_defaults=True):
    """What came in on this partition: distinct records, copies of them, quarantined ones; and the same of this hour."""

    records: int = 0
    duplicates: int = 0
    rejected: int = 0
    unknown: dict[str, int] = {}
    hour: int = 0
    hour_read: int = 0
    hour_rejected: int = 0


class VaultStep:
    """The step of the topic `vault-access` for one partition."""

    topic = VAULT_ACCESS

    def __init__(self, *, limits: Limits, declared: VaultDeclarations | None = None) -> None:
        self._limits = limits
        self._declared = declared
        self._book = FindingBook()
        self._seen: deque[tuple[int, bytes]] = deque()
        self._pruned_ms = 0

    def restore(self, state: State) -> None:
        """Rebuild the order in which seen accesses are forgotten."""
        self._book.restore(state)
        found = ((state.get(Kind.SEEN, ident, Seen), ident) for ident in state.idents(Kind.SEEN))
        self._seen = deque(sorted((seen.append_ms, ident) for seen, ident in found if seen is not None))

    def apply(self, message: Message, now_ms: int, state: State, effects: Effects) -> None:
        """Take one record."""
        meter = state.get(Kind.METER, METER, VaultMeter) or VaultMeter()
        if now_ms // HOUR_MS != meter.hour:
            meter.hour, meter.hour_read, meter.hour_rejected = now_ms // HOUR_MS, 0, 0
        meter.hour_read += 1
        try:
            original, access = taken(message)
        except VaultRecordRejected as refusal:
            self._quarantine(refusal, message, meter, now_ms, state, effects)
        else:
            ident = bytes.fromhex(access.access_id)
            if state.get(Kind.SEEN, ident, Seen) is not None:
                meter.duplicates += 1
            else:
                state.put(Kind.SEEN, ident, Seen(message.append_ms))
                self._seen.append((message.append_ms, ident))
                effects.document(vault_access_document(access, original, message.append_ms))
                self._take(access, message.append_ms, meter, now_ms, state, effects)
        state.put(Kind.METER, METER, meter)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Forget accesses whose copies can no longer come, and send findings that are due."""
        while self._seen and self._seen[0][0] + self._limits.access_seen_ms <= now_ms:
            state.forget(Kind.SEEN, self._seen.popleft()[1])
        if now_ms - self._pruned_ms >= PRUNE_MS:
            self._pruned_ms = now_ms
            twins.prune(now_ms, state)
        self._book.tick(now_ms, state, effects)

    def reindex(self, message: Message, effects: Effects) -> None:
        """Append the message's document again; a copy's has the id of the first, and changes nothing."""
        try:
            original, access = taken(message)
        except VaultRecordRejected as refusal:
            rejected.document(message, QUARANTINE, refusal.field, _words(refusal), effects)
        else:
            effects.document(vault_access_document(access, original, message.append_ms))

    def redocument(self, state: State, effects: Effects) -> None:
        """There are no documents that change."""

    def indexed(self, document: Document, state: State) -> None:
        """The same."""

    def _take(  # noqa: PLR0917 - the step's own arguments, handed on
        self, access: VaultAccess, append_ms: int, meter: VaultMeter, now_ms: int, state: State, effects: Effects
    ) -> None:
        meter.records += 1
        if self._declared is not None:
            sightings.tell(access, append_ms, state, effects)
        found = rules.run(access, self._limits)
        acts = rules.run(KekAct(access=access), self._limits) if access.access_class is AccessClass.ADMIN else []
        joined = _is_joined(access, acts)
        if joined:
            key = correlate.partition_key(access.vault or "", access.object_name or "")
            effects.send(CORRELATE, key, correlate.encode(_use(access, append_ms)))
        elif acts and twins.is_news(access, state):
            found += acts
        for finding in found:
            self._book.report(finding, now_ms, state, effects)
        observations.tell(access, append_ms, [*found, *acts] if joined else found, effects)
        if access.access_class is AccessClass.UNKNOWN:
            self._unknown(access, meter, now_ms, state, effects)

    def _unknown(self, access: VaultAccess, meter: VaultMeter, now_ms: int, state: State, effects: Effects) -> None:
        if access.operation in meter.unknown or len(meter.unknown) < MAX_UNKNOWN:
            meter.unknown[access.operation] = meter.unknown.get(access.operation, 0) + 1
        finding = system_finding(
            "unknown_operation",
            summary=f"{access.operation[:64]} on {access.vault}, and {len(meter.unknown) - 1} other unknown operations",
            effective_ms=access.time_us // 1000,
            evidence=(Evidence(DocKind.VAULT_ACCESS, access.access_id, access.time_us // 1000),),
            facts={"operations": ", ".join(name[:64] for name in sorted(meter.unknown)[:8])},
        )
        self._book.report(finding, now_ms, state, effects)

    def _quarantine(  # noqa: PLR0917 - the step's own arguments, handed on
        self,
        refusal: VaultRecordRejected,
        message: Message,
        meter: VaultMeter,
        now_ms: int,
        state: State,
        effects: Effects,
    ) -> None:
        meter.rejected += 1
        meter.hour_rejected += 1
        rejected.reject(message, QUARANTINE, refusal.field, _words(refusal), now_ms, effects)
        if meter.hour_rejected <= QUARANTINE_SHARE * meter.hour_read:
            return
        many = meter.hour_rejected >= self._limits.rejected_per_minute
        finding = system_finding(
            QUARANTINE,
            summary=f"{meter.hour_rejected} of {meter.hour_read} vault records of this hour cannot be read or trusted",
            effective_ms=message.append_ms,
            severity=None if many else Severity.MEDIUM,
            key=VAULT_ACCESS,
            evidence=(Evidence(DocKind.REJECTED, rejected.document_id(message), message.append_ms),),
            facts={"reason": refusal.reason, "field": refusal.field},
        )
        self._book.report(finding, now_ms, state, effects)


def taken(message: Message) -> tuple[Raw, VaultAccess]:
    """Read a message: the record as received, and what it says.

    Raises:
        VaultRecordRejected: it cannot be read, must not be trusted, or is the use of a key that it does not name.
    """
    try:
        record = messages.decode(message.value)
        original = _decode(record.original)
    except (msgspec.DecodeError, RecursionError) as error:
        raise VaultRecordRejected(Reason.MESSAGE, "value", "no message of vault-access, version 1") from error
    if not isinstance(original, dict):
        raise VaultRecordRejected(Reason.MESSAGE, "original", "not an object")
    access = normalise(original, resource_id=record.resource_id or None)
    names_key = access.object_kind == "key" and access.object_name is not None
    if access.access_class is AccessClass.USE and access.operation.startswith("Key") and not names_key:
        raise VaultRecordRejected(Reason.OBJECT_MISSING, "id", "a use of a key that neither id nor requestUri names")
    return record.original, access


def _words(refusal: VaultRecordRejected) -> str:
    return f"{refusal.reason}: {refusal.problem}"


def _is_joined(access: VaultAccess, acts: list[Finding]) -> bool:
    """Say whether a record is the join's: a use of a key, an act to be told unless it is ours, or news of a key."""
    if access.object_kind != "key" or access.vault is None or access.object_name is None:
        return False
    if access.access_class is AccessClass.NOTIFICATION:
        return tells(access)
    return access.access_class is AccessClass.USE or bool(acts)


def _use(access: VaultAccess, append_ms: int) -> correlate.Use:
    principal = access.principal
    return correlate.Use(
        v=1,
        access_id=access.access_id,
        vault=access.vault or "",
        name=access.object_name or "",
        version=access.object_version,
        operation=access.operation,
        outcome=access.outcome or "",
        principal_id=principal.id,
        principal_kind=principal.kind,
        principal_label=principal.upn or principal.resource or principal.app_id,
        address=access.address,
        correlation_id=access.correlation_id,
        time_us=access.time_us,
        append_ms=append_ms,
        act=None if access.access_class is AccessClass.USE else access,
    )
