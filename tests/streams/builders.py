"""A small real sender and a small real monitor: batches are sealed with real signers and opened by the real steps."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from alerts.model import FindingMessage, FindingResolved
from alerts.thresholds import DEFAULT_LIMITS, Limits
from cryptocore.batch import NO_PREVIOUS, SealedBatch, seal_batch
from cryptocore.clock import rfc3339_ms
from cryptocore.events import (
    AuditEvent,
    ChainClose,
    ChainOpen,
    Durability,
    Head,
    Heartbeat,
    KeyRef,
    Line,
    Operation,
    Outcome,
    OwnerRef,
    Phase,
    Reason,
    encode_line,
)
from cryptocore.keys import KeyState
from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import Signer
from streams.index.port import Document
from streams.messages import CORRELATE, FINDINGS, KEY_EVENTS, REJECTED, SOURCES, Effects, Message, Out
from streams.presence.sources import SourcesStep
from streams.state import Kind, State
from streams.trail.keys import KeysStep
from streams.trail.refusals import Meter

NOW_MS = 1_795_000_000_000
DEPLOYMENT = bytes(range(16))
KEY_ID = "5f2a" + "0" * 28
OWNER = OwnerRef(tenant_id="t-88", integration_id="crm")

_serial = iter(range(1, 1 << 60))


def uuid_of(number: int) -> str:
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def fresh_id() -> str:
    return uuid_of(next(_serial))


def registered(
    source: str,
    signer: Signer,
    *roles: Role,
    valid_ms: tuple[int, int] = (0, 2 * NOW_MS),
    compromised_from_ms: int | None = None,
) -> RegisteredSigner:
    return RegisteredSigner(
        signer_id=signer.signer_id,
        public_key=signer.public_key,
        source=source,
        roles=frozenset(roles or (Role.EVENTS, Role.KEYS)),
        vault_principals=(),
        person=None,
        valid_from_ms=valid_ms[0],
        valid_until_ms=valid_ms[1],
        compromised_from_ms=compromised_from_ms,
    )


def event(
    operation: Operation = Operation.DECRYPT,
    outcome: Outcome | None = Outcome.SUCCEEDED,
    *,
    at_ms: int = NOW_MS,
    service: str = "billing",
    key_id: str | None = KEY_ID,
    version: int = 1,
    revision: int = 2,
    reason: Reason | None = None,
    state: KeyState | None = KeyState.ACTIVE,
    **fields: Any,
) -> AuditEvent:
    key = None if key_id is None else KeyRef(id=key_id, version=version, revision=revision, kind="dek", state=state)
    return AuditEvent(
        id=fields.pop("id", None) or fresh_id(),
        phase=fields.pop("phase", Phase.SINGLE),
        operation=operation,
        outcome=outcome,
        reason=reason,
        occurred_at=rfc3339_ms(at_ms),
        service=service,
        key=key,
        owner=fields.pop("owner", OWNER),
        actor=fields.pop("actor", "user:4711"),
        purpose=fields.pop("purpose", "crm-sync"),
        **fields,
    )


def revoked(*, at_ms: int = NOW_MS, revision: int = 3, **fields: Any) -> AuditEvent:
    return event(
        Operation.REVOKE,
        at_ms=at_ms,
        revision=revision,
        reason=Reason.COMPROMISE_SUSPECTED,
        state=KeyState.REVOKED,
        **fields,
    )


@dataclass(frozen=True)
class Sent:
    """A sealed batch on its way, and the partition it was sealed for."""

    partition: int
    batch: SealedBatch
    head: Head


@dataclass
class Sender:
    """One process of a service: seals lines into its chains, as the spool does."""

    service: str = "billing"
    signer: Signer = field(default_factory=Signer.generate)
    instance: bytes = b"\xaa" * 16
    deployment: bytes = DEPLOYMENT
    generation: int = 1
    heads: dict[int, Head] = field(default_factory=dict)

    def seal(
        self, *lines: Line | bytes, partition: int = 0, sealed_ms: int = NOW_MS, sequence: int | None = None
    ) -> Sent:
        head = self.heads.get(partition)
        number = (0 if head is None else head.sequence + 1) if sequence is None else sequence
        raw = [line if isinstance(line, bytes) else encode_line(line) for line in lines]
        batch = seal_batch(
            b"".join(line + b"\n" for line in raw),
            count=len(raw),
            deployment=self.deployment,
            instance=self.instance,
            generation=self.generation,
            partition=partition,
            sequence=number,
            previous=NO_PREVIOUS if head is None else bytes.fromhex(head.digest),
            sealed_at_ms=sealed_ms,
            signer=self.signer,
        )
        digest = hashlib.sha256(batch.seal).hexdigest()
        new = Head(generation=self.generation, partition=partition, sequence=number, digest=digest)
        self.heads[partition] = new
        return Sent(partition, batch, new)

    def open(self, *, at_ms: int = NOW_MS, continues: bytes | None = None) -> Sent:
        line = ChainOpen(
            id=fresh_id(),
            at=rfc3339_ms(at_ms),
            service=self.service,
            durability=Durability.VOLUME,
            continues=None if continues is None else continues.hex(),
        )
        return self.seal(line, sealed_ms=at_ms)

    def beat(self, *, at_ms: int = NOW_MS, unsent_ms: int | None = None) -> Sent:
        return self._heads(Heartbeat, at_ms, unsent_ms)

    def close(self, *, at_ms: int = NOW_MS) -> Sent:
        return self._heads(ChainClose, at_ms, None)

    def _heads(self, kind: type[Heartbeat] | type[ChainClose], at_ms: int, unsent_ms: int | None) -> Sent:
        line = kind(
            id=fresh_id(),
            at=rfc3339_ms(at_ms),
            service=self.service,
            heads=tuple(self.heads.values()),
            tallies=(),
            oldest_unsent_at=None if unsent_ms is None else rfc3339_ms(unsent_ms),
        )
        return self.seal(line, sealed_ms=at_ms)


class Monitor:
    """Keys steps for some partitions and the sources step, driven by hand; cuts after every message."""

    def __init__(self, *signers: RegisteredSigner, partitions: int = 2, limits: Limits = DEFAULT_LIMITS) -> None:
        self.registry = Registry(DEPLOYMENT, signers)
        self.limits = limits
        self.now_ms = NOW_MS
        self.states = [State() for _ in range(partitions)]
        self.sources_state = State()
        self.documents: list[Document] = []
        self.outs: list[Out] = []
        self._offsets = [0] * partitions
        self._sources_offset = 0
        self.steps = [
            KeysStep(registry=self.registry, limits=limits, generation=1, partition=number)
            for number in range(partitions)
        ]
        self.sources = SourcesStep(registry=self.registry, limits=limits)
        self.restore()

    def restore(self) -> None:
        """What a takeover does."""
        for step, state in zip(self.steps, self.states, strict=True):
            step.restore(state)
        self.sources.restore(self.sources_state)

    def message(self, sent: Sent, *, append_ms: int | None = None, partition: int | None = None) -> Message:
        place = sent.partition if partition is None else partition
        headers = tuple(sent.batch.headers())
        at_ms = self.now_ms if append_ms is None else append_ms
        return Message(KEY_EVENTS, place, self._offsets[place], at_ms, None, sent.batch.value, headers)

    def take(self, *sent: Sent | Message, append_ms: int | None = None) -> None:
        for one in sent:
            message = self.message(one, append_ms=append_ms) if isinstance(one, Sent) else one
            self.now_ms = max(self.now_ms, message.append_ms)
            self._offsets[message.partition] = message.offset + 1
            effects = Effects()
            state = self.states[message.partition]
            self.steps[message.partition].apply(message, self.now_ms, state, effects)
            state.cut()
            self._route(effects)

    def tick(self, now_ms: int, *, step_ms: int = 5_000) -> None:
        """Let time pass as the shells do: in small steps."""
        while self.now_ms < now_ms:
            self.now_ms = min(now_ms, self.now_ms + step_ms)
            for step, state in zip(self.steps, self.states, strict=True):
                effects = Effects()
                step.tick(self.now_ms, state, effects)
                state.cut()
                self._route(effects)
            effects = Effects()
            self.sources.tick(self.now_ms, self.sources_state, effects)
            self.sources_state.cut()
            self._route(effects)

    def _route(self, effects: Effects) -> None:
        self.outs += effects.out
        self.documents += effects.documents
        for out in effects.out:
            if out.topic == SOURCES:
                message = Message(SOURCES, 0, self._sources_offset, self.now_ms, out.key, out.value)
                self._sources_offset += 1
                answer = Effects()
                self.sources.apply(message, self.now_ms, self.sources_state, answer)
                self.sources_state.cut()
                self._route(answer)

    def values(self, topic: str) -> list[bytes]:
        return [out.value for out in self.outs if out.topic == topic]

    def findings(self) -> list[FindingMessage]:
        return list(_findings(self.values(FINDINGS), FindingMessage))

    def resolved(self) -> list[FindingResolved]:
        return list(_findings(self.values(FINDINGS), FindingResolved))

    def found(self) -> dict[str, int]:
        """Rule ids of all findings, each with its last count, over its fingerprints."""
        last = {message.fingerprint: message for message in self.findings()}
        found: dict[str, int] = {}
        for message in last.values():
            found[message.finding.rule_id] = found.get(message.finding.rule_id, 0) + message.count
        return found

    def rejected(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(value) for value in self.values(REJECTED)]

    def correlated(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(value) for value in self.values(CORRELATE)]

    def meter(self, partition: int = 0) -> Meter:
        return self.states[partition].get(Kind.METER, b"keys", Meter) or Meter()


def _findings(values: Iterable[bytes], kind: type[Any]) -> Iterator[Any]:
    decoder = msgspec.json.Decoder(FindingMessage | FindingResolved)
    return (message for message in map(decoder.decode, values) if isinstance(message, kind))
