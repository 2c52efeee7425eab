"""An alert's life: opened, worse, acknowledged, silenced, resolved, opened again. Pure: the time is an argument.

An alert gathers the findings of one fingerprint. Counts and retractions only grow and are kept per finding, so the same
messages in any order, and any of them twice, give the same alert; what a person decides is applied once, in the order
of the topic.
"""

from typing import Final, Literal

from msgspec import Struct
from msgspec.json import encode
from msgspec.structs import replace

from alerts.model import Command, Evidence, Finding, FindingMessage, FindingResolved, Severity
from alerts.thresholds import Limits

Status = Literal["open", "acknowledged", "resolved"]
Telling = Literal["opened", "worse", "resolved"]

NOTIFIED_FROM: Final = Severity.LOW
"""Alerts below are listed and reported, and wake nobody."""
STATES: Final = frozenset({"pending_source", "match_ratio_low", "rotation_unfinished"})
"""Findings about a state that lasts: of those, what was said of the latest moment is what stands."""
_COMMANDS_KEPT: Final = 32


class Told(Struct, array_like=True):
    """How often a finding was hit, and how many of its hits were explained after all."""

    count: int
    retracted: int = 0


class Owed(Struct, kw_only=True, omit_defaults=True):
    """A notification that is to be sent; what it says is written when it is sent, from the alert as it is then."""

    kind: Telling
    ordinal: int
    before_count: int = 0
    before_severity: Severity | None = None
    because: str = ""


class Delivered(Struct, array_like=True):
    """One notification that got through."""

    channel: str
    kind: str
    at_ms: int


class Alert(Struct, kw_only=True, omit_defaults=True):
    """One alert; `finding` is the worst hit, among equals the earliest (of a state: the latest).

    Times `_ms` but first and last are ours.

    `inhibited` holds, by finding id, what would be alerts of their own if this one did not tell of their cause;
    `superseded_by` names the alert that does so for this one, since it came.
    """

    alert_id: str
    number: int
    fingerprint: str
    finding: Finding
    told: dict[str, Told]
    first_ms: int
    last_ms: int
    opened_ms: int
    heard_ms: int
    status: Status = "open"
    closed_count: int | None = None
    resolved_ms: int = 0
    resolved_by: str = ""
    acknowledged_by: str = ""
    acknowledged_ms: int = 0
    acknowledged_until_ms: int = 0
    silenced_by: str = ""
    silenced_until_ms: int = 0
    notified_ms: int = 0
    notified_count: int = 0
    notified_severity: Severity | None = None
    notifications: int = 0
    owed: list[Owed] = []
    delivered: list[Delivered] = []
    commands: list[str] = []
    inhibited: dict[str, FindingMessage] = {}
    superseded_by: str = ""
    revision: int = 0
    doc_indexed: int = 0

    @property
    def name(self) -> str:
        """The number that people say."""
        return f"KT-{self.number}"

    @property
    def severity(self) -> Severity:
        return self.finding.severity

    @property
    def count(self) -> int:
        """Hits that stand."""
        return sum(max(0, told.count - told.retracted) for told in self.told.values())


def opened(message: FindingMessage, *, alert_id: str, number: int, now_ms: int) -> Alert:
    """Begin an alert with its opening finding."""
    return Alert(
        alert_id=alert_id,
        number=number,
        fingerprint=message.fingerprint,
        finding=message.finding,
        told={message.finding_id: Told(message.count)},
        first_ms=message.first_ms,
        last_ms=message.last_ms,
        opened_ms=now_ms,
        heard_ms=now_ms,
    )


def absorb(alert: Alert, message: FindingMessage, *, now_ms: int, limits: Limits) -> bool:
    """Add what a message tells; returns whether it told anything new."""
    told = alert.told.get(message.finding_id, Told(0))
    finding = _worst(alert.finding, message.finding, limits.evidence)
    news = (
        max(told.count, message.count),
        min(alert.first_ms, message.first_ms),
        max(alert.last_ms, message.last_ms),
        finding,
    )
    if news == (told.count, alert.first_ms, alert.last_ms, alert.finding) and message.finding_id in alert.told:
        return False
    told.count, alert.first_ms, alert.last_ms, alert.finding = news
    alert.told[message.finding_id] = told
    alert.heard_ms = now_ms
    return True


def retract(alert: Alert, message: FindingResolved, *, now_ms: int) -> bool:
    """Take hits back that were explained; returns whether that was news."""
    told = alert.told.get(message.finding_id, Told(0))
    news = Told(max(told.count, message.count), max(told.retracted, message.retracted))
    if news == told:
        return False
    alert.told[message.finding_id] = news
    alert.heard_ms = now_ms
    if alert.count == 0:
        alert.resolved_by = message.explanation
    return True


def obey(alert: Alert, command: Command, *, now_ms: int) -> bool:
    """Do what a person decided, once; returns whether it changed anything."""
    if command.id in alert.commands:
        return False
    alert.commands = [*alert.commands, command.id][-_COMMANDS_KEPT:]
    if command.act == "resolve":
        alert.closed_count, alert.resolved_by = alert.count, command.person
    elif command.act == "acknowledge":
        alert.acknowledged_by, alert.acknowledged_ms = command.person, now_ms
        alert.acknowledged_until_ms = command.until_ms or 0
    else:
        alert.silenced_by, alert.silenced_until_ms = command.person, command.until_ms or 0
    alert.heard_ms = now_ms
    return True


def settle(alert: Alert, *, now_ms: int, limits: Limits) -> bool:
    """Bring status and debts up to date with what was told and with the time; returns whether anything changed."""
    before = _outside(alert)
    if alert.status != "resolved" and alert.count and now_ms - alert.heard_ms >= limits.quiet_ms:
        alert.closed_count, alert.resolved_by = alert.count, "nobody: quiet for a week"
    status = _status(alert, now_ms)
    if status == "resolved":
        if alert.status != "resolved":
            alert.resolved_ms = now_ms
            _tell_resolved(alert)
    else:
        if alert.status == "resolved":
            _reopen(alert)
            status = _status(alert, now_ms)
        lapsed = alert.status == "acknowledged" and status == "open"
        _tell_open(alert, now_ms, limits, lapsed=lapsed)
    alert.status = status
    return before != _outside(alert)


def due_ms(alert: Alert, *, now_ms: int, limits: Limits) -> int:
    """When `settle` has to be called again although nothing new is told; for a resolved one, when it may go."""
    if alert.status == "resolved":
        return alert.resolved_ms + limits.quiet_ms
    ends = (alert.acknowledged_until_ms, alert.silenced_until_ms, alert.notified_ms + limits.worse_after_ms)
    return min((alert.heard_ms + limits.quiet_ms, *(end for end in ends if end > now_ms)))


def sent(alert: Alert, ordinal: int, channels: tuple[str, ...], *, now_ms: int) -> bool:
    """Note that a notification got through; returns whether it was owed."""
    due = next((owed for owed in alert.owed if owed.ordinal == ordinal), None)
    if due is None:
        return False
    alert.owed = [owed for owed in alert.owed if owed.ordinal != ordinal]
    alert.delivered = [*alert.delivered, *(Delivered(channel, due.kind, now_ms) for channel in channels)]
    return True


def _outside(alert: Alert) -> tuple[object, ...]:
    return alert.status, len(alert.owed), alert.notifications, alert.notified_ms, alert.acknowledged_until_ms


def _status(alert: Alert, now_ms: int) -> Status:
    count = alert.count
    if alert.superseded_by or count == 0 or (alert.closed_count is not None and count <= alert.closed_count):
        return "resolved"
    return "acknowledged" if alert.acknowledged_until_ms > now_ms else "open"


def _reopen(alert: Alert) -> None:
    """A hit after the end: the same alert, told anew, with nobody's acknowledgement."""
    alert.closed_count, alert.resolved_by, alert.resolved_ms = None, "", 0
    alert.acknowledged_by, alert.acknowledged_ms, alert.acknowledged_until_ms = "", 0, 0
    alert.notified_ms, alert.notified_count, alert.notified_severity = 0, 0, None


def _tell_resolved(alert: Alert) -> None:
    waiting = any(owed.kind == "opened" for owed in alert.owed)
    alert.owed = []
    if alert.notified_severity is not None and not waiting:
        _owe(alert, Owed(kind="resolved", ordinal=alert.notifications))


def _tell_open(alert: Alert, now_ms: int, limits: Limits, *, lapsed: bool) -> None:
    """Owe a notification where there is reason; a silence holds it back, but never a critical one."""
    silenced = alert.silenced_until_ms > now_ms and alert.severity is not Severity.CRITICAL
    if silenced or alert.severity.rank < NOTIFIED_FROM.rank:
        return
    told, count = alert.notified_severity, alert.count
    if told is None:
        alert.owed = []
        _owe(alert, Owed(kind="opened", ordinal=alert.notifications))
    else:
        grown = count >= limits.worse_factor * alert.notified_count
        rested = now_ms - alert.notified_ms >= limits.worse_after_ms
        if not (lapsed or alert.severity.rank > told.rank or (grown and rested)):
            return
        if not alert.owed:  # what is still to be sent will tell the newest state anyway
            owed = Owed(kind="worse", ordinal=alert.notifications, before_count=alert.notified_count)
            owed.before_severity = told
            owed.because = "the acknowledgement has run out" if lapsed else ""
            _owe(alert, owed)
    alert.notified_ms, alert.notified_count, alert.notified_severity = now_ms, count, alert.severity


def _owe(alert: Alert, owed: Owed) -> None:
    alert.owed = [*alert.owed, owed]
    alert.notifications += 1


def _worst(one: Finding, other: Finding, evidence: int) -> Finding:
    """The worse of two hits, among equals the earlier (of a state: the later), with the documents that both cite."""
    proof = sorted({*one.evidence, *other.evidence}, key=lambda each: (each.at_ms, each.kind, each.id))
    return replace(min(one, other, key=_weight), evidence=ends(proof, evidence))


def _weight(finding: Finding) -> tuple[int, int, bytes]:
    at_ms = -finding.effective_ms if finding.rule_id in STATES else finding.effective_ms
    return -finding.severity.rank, at_ms, encode(replace(finding, evidence=()), order="deterministic")


def ends(proof: list[Evidence], keep: int) -> tuple[Evidence, ...]:
    """The first and the last of what was proven, as many as are kept."""
    if len(proof) <= keep:
        return tuple(proof)
    return (*proof[: keep // 2], *proof[len(proof) - (keep - keep // 2) :])
