"""A bench for the join: messages in, what stands in the end out. Shared by its tests; time is an argument."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec.structs import replace

from alerts.examples import key_change, vault_access
from alerts.model import AccessClass, AccessOutcome, FindingMessage, FindingResolved, KekUse, Principal, PrincipalKind
from alerts.thresholds import HOUR_MS, MINUTE_MS, Limits
from cryptocore.clock import rfc3339_ms
from cryptocore.events import KeyRef, OwnerRef, VaultAttempt
from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import signer_id_of
from streams.index.port import Document
from streams.joining import correlate
from streams.joining.correlate import Claim, Progress, Use
from streams.joining.join import JoinStep
from streams.joining.joinstate import UseState
from streams.messages import CORRELATE, FINDINGS, REJECTED, Effects, Message
from streams.state import Kind, State

T0 = 1_763_260_800_000
BILLING, OTHER, STRANGER = "billing-principal", "crm-principal", "stranger"
VERSION = "c0ffee00c0ffee00c0ffee00c0ffee00"


def registry() -> Registry:
    """billing and crm, each with a vault principal of its own."""
    entries = []
    for source, principal in (("billing", BILLING), ("crm", OTHER)):
        public = sha256(source.encode()).digest()
        entries.append(
            RegisteredSigner(
                signer_id_of(public), public, source, frozenset({Role.EVENTS}), (principal,), None, 0, 1 << 50
            )
        )
    return Registry(bytes(16), tuple(entries))


def call_id(name: str) -> str:
    return f"call-{name}"


def request_id(name: str) -> str:
    return f"request-{name}"


def intent(name: str, at_ms: int = T0, *, calls: int = 1, **changes: Any) -> Claim:
    call_ids = tuple(call_id(f"{name}{number or ''}") for number in range(calls))
    values = {
        "event_id": f"intent-{name}",
        "phase": "intent",
        "call_ids": call_ids,
        "effective_ms": at_ms,
        "append_ms": at_ms,
    }
    return _claim(values | changes)


def attempt(name: str, at_ms: int = T0, status: int | None = 200) -> VaultAttempt:
    answered = status is not None
    return VaultAttempt(
        call_id=call_id(name),
        request_id=request_id(name) if answered else None,
        http_status=status,
        started_at=rfc3339_ms(at_ms),
        ended_at=rfc3339_ms(at_ms + 40) if answered else None,
    )


def outcome(
    call: str, /, at_ms: int = T0, *, attempts: tuple[VaultAttempt, ...] | None = None, **changes: Any
) -> Claim:
    values = {
        "event_id": f"outcome-{call}",
        "intent_id": f"intent-{call}",
        "phase": "outcome",
        "outcome": "succeeded",
        "attempts": (attempt(call, at_ms),) if attempts is None else attempts,
        "effective_ms": at_ms + 50,
        "append_ms": at_ms + 50,
    }
    return _claim(values | changes)


def _claim(values: dict[str, Any]) -> Claim:
    shared: dict[str, Any] = {
        "v": 1,
        "source": "billing",
        "instance": "01" * 16,
        "vault": "kv-prod",
        "name": "tenant-kek",
        "version": VERSION,
        "operation": "unwrap",
        "key": KeyRef(id="5f2a" * 8),
        "owner": OwnerRef(tenant_id="t-88", integration_id="crm"),
        "actor": "user:4711",
        "purpose": "crm-sync",
    }
    return Claim(**(shared | values))


def use(name: str, /, at_ms: int = T0 + 20, *, correlation: str | None = None, **changes: Any) -> Use:
    values: dict[str, Any] = {
        "v": 1,
        "access_id": sha256(name.encode()).hexdigest(),
        "vault": "kv-prod",
        "name": "tenant-kek",
        "version": VERSION,
        "operation": "KeyUnwrap",
        "outcome": "succeeded",
        "principal_id": BILLING,
        "principal_kind": "workload",
        "address": "203.0.113.7",
        "correlation_id": correlation,
        "time_us": at_ms * 1000,
        "append_ms": at_ms,
    }
    return Use(**(values | changes))


def act(name: str, /, operation: str, at_ms: int = T0 + 20, *, correlation: str | None = None, **changes: Any) -> Use:
    """The record of an administrative act by billing's identity, as the vault agent sends it on."""
    own = {name: changes.pop(name) for name in ("version", "outcome", "principal_id", "name") if name in changes}
    shared = use(name, at_ms, operation=operation, correlation=correlation, **({"version": None} | own))
    record = vault_access(
        operation,
        AccessOutcome(shared.outcome),
        access_id=shared.access_id,
        time=f"{rfc3339_ms(at_ms)[:-1]}0Z",
        time_us=shared.time_us,
        vault=shared.vault,
        object_name=shared.name,
        object_version=shared.version,
        principal=Principal(shared.principal_id, PrincipalKind.WORKLOAD),
        correlation_id=correlation,
        **changes,
    )
    return replace(shared, act=record)


def news(record: str, /, operation: str, at_ms: int, *, version: str, expires_at: str | None = None) -> Use:
    """What Event Grid says of a version of the KEK."""
    told = act(record, f"Microsoft.KeyVault.{operation}", at_ms, principal_id=None, version=version)
    assert told.act is not None
    change = None if expires_at is None else key_change(expires_at=expires_at)
    seen = replace(told.act, access_class=AccessClass.NOTIFICATION, outcome=None, http_status=None, key_change=change)
    return replace(told, outcome="", act=seen)


def kek_act(operation: str, name: str, at_ms: int = T0, *, phase: str = "outcome", **changes: Any) -> Claim:
    """What billing says of an act on the KEK: the outcome, or the intent."""
    about = {"operation": operation, "version": None, "owner": None, "actor": "user:1009", "purpose": "rotation"}
    made = outcome if phase == "outcome" else intent
    return made(name, at_ms, **(about | changes))


def progress(passed_ms: int, *, instance: str = "01" * 16, state: Any = "live", source: str = "billing") -> Progress:
    return Progress(v=1, source=source, instance=instance, passed_ms=passed_ms, state=state)


@dataclass
class Bench:
    """One partition of the join, with an index that confirms every document at once."""

    step: JoinStep = field(default_factory=lambda: JoinStep(registry=registry(), limits=Limits()))
    state: State = field(default_factory=State)
    now_ms: int = T0
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[FindingMessage | FindingResolved] = field(default_factory=list)
    rejected: int = 0
    offset: int = 0

    def __post_init__(self) -> None:
        self.step.restore(self.state)

    def send(self, *messages: Claim | Use | Progress | bytes, at_ms: int | None = None) -> None:
        """Append messages, all at one time."""
        self.now_ms = max(self.now_ms, at_ms or 0)
        for message in messages:
            value = message if isinstance(message, bytes) else correlate.encode(message)
            effects = Effects()
            record = Message(CORRELATE, 0, self.offset, self.now_ms, b"kv-prod/tenant-kek", value)
            self.step.apply(record, self.now_ms, self.state, effects)
            self.offset += 1
            self._take(effects)

    def wait(self, ms: int, *, step_ms: int = MINUTE_MS) -> None:
        """Let time pass, a tick at a time."""
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms:
            self.now_ms = min(end_ms, self.now_ms + step_ms)
            effects = Effects()
            self.step.tick(self.now_ms, self.state, effects)
            self._take(effects)

    def restart(self) -> None:
        """Cut, and go on with another step that reads the state back."""
        self.state.cut()
        read = State()
        for key, value in self.state.dump().items():
            read.load(key, value)
        self.state = read
        self.step = JoinStep(registry=registry(), limits=Limits())
        self.step.restore(self.state)

    def verdict(self, name: str) -> tuple[str, str | None, str | None]:
        """Status, strength and reason of a record, by the name it was made with; of an event by its id."""
        found = self.documents.get(sha256(name.encode()).hexdigest()) or self.documents[name]
        return found["status"], found["strength"], found["reason"]

    def final(self) -> dict[str, tuple[Any, ...]]:
        """What the documents say in the end."""
        fields = ("status", "strength", "reason", "final", "event_id", "actor")
        return {name: tuple(body[each] for each in fields) for name, body in self.documents.items()}

    def kept(self, name: str) -> KekUse | None:
        known = self.state.get(Kind.USE, sha256(name.encode()).digest(), UseState)
        return None if known is None else known.use

    def standing(self) -> dict[str, int]:
        """Hits that stand, by rule: counted, less those that were taken back."""
        counts: dict[str, tuple[str, int, int]] = {}
        for message in self.findings:
            rule, count, retracted = counts.get(message.finding_id, ("", 0, 0))
            if isinstance(message, FindingMessage):
                rule = message.finding.rule_id
            else:
                retracted = max(retracted, message.retracted)
            counts[message.finding_id] = (rule, max(count, message.count), retracted)
        standing: dict[str, int] = {}
        for rule, count, retracted in counts.values():
            if count > retracted:
                standing[rule] = standing.get(rule, 0) + count - retracted
        return standing

    def _take(self, effects: Effects) -> None:
        for out in effects.out:
            if out.topic == FINDINGS:
                self.findings.append(msgspec.json.decode(out.value, type=FindingMessage | FindingResolved))
            self.rejected += out.topic == REJECTED
        for document in effects.documents:
            self._index(document)

    def _index(self, document: Document) -> None:
        if document.version == 0:
            return
        known = self.documents.get(document.id)
        body = msgspec.json.decode(document.body)
        if known is None or known["revision"] < body["revision"]:
            self.documents[document.id] = body
        self.step.indexed(document, self.state)


Timed = tuple[int, Claim | Use | Progress]
"""A message and when it arrives."""


def play(messages: Sequence[Timed], *, restart_after: int | None = None) -> Bench:
    """Send messages at their times, a tick a minute between them."""
    bench = Bench()
    for number, (at_ms, message) in enumerate(messages):
        while bench.now_ms + MINUTE_MS <= at_ms:
            bench.wait(MINUTE_MS)
        bench.send(message, at_ms=at_ms)
        if number == restart_after:
            bench.restart()
    return bench


def play_out(messages: Sequence[Timed], *, restart_after: int | None = None) -> Bench:
    """Send messages at their times, and wait until nothing of them is open."""
    bench = play(messages, restart_after=restart_after)
    bench.wait(2 * HOUR_MS, step_ms=5 * MINUTE_MS)
    return bench


def disordered(data: st.DataObject, history: Sequence[Timed], *, most_minutes: int) -> tuple[list[Timed], int]:
    """The same messages, late and shuffled, and after which of them to restart."""
    delays = data.draw(st.lists(st.integers(0, most_minutes), min_size=len(history), max_size=len(history)))
    late = [(at_ms + minutes * MINUTE_MS, message) for (at_ms, message), minutes in zip(history, delays, strict=True)]
    shuffled = data.draw(st.permutations(late))
    return sorted(shuffled, key=lambda timed: timed[0]), data.draw(st.integers(0, len(late)))
