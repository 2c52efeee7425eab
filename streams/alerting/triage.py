"""From findings to alerts: the only consumer of `findings`, the only writer of alerts, and what it owes to people.

A finding joins the open alert of its fingerprint or opens one. What an alert is, and when somebody is told, is
alerts.lifecycle's; this step keeps the records, numbers them, and hands the shell what is to be sent. Two partitions
that report one fingerprint make one alert. A retraction that comes before its finding waits for it. Of two alerts of
one cause one stays (alerts.inhibition).
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from alerts import grouping, inhibition, lifecycle, text
from alerts.lifecycle import Alert
from alerts.model import Command, Finding, FindingMessage, FindingResolved, Notification
from alerts.thresholds import Limits
from cryptocore.clock import rfc3339_ms
from streams import rejected
from streams.alerting import canaries
from streams.index.documents import alert_document
from streams.index.port import Document
from streams.messages import FINDINGS, Effects, Message
from streams.state import Kind, State

FIRST_NUMBER: Final = 1001
"""The first alert is KT-1001: numbers of one length sort and read better."""

_ALERT: Final = bytes((Kind.ALERT,))
_NUMBERS: Final = b"numbers"
_EARLY: Final = b"early/"
_RETRY_MS: Final = 60_000

_decoder: msgspec.json.Decoder[FindingMessage | FindingResolved | Command] = msgspec.json.Decoder(
    FindingMessage | FindingResolved | Command
)


class Numbers(Struct, kw_only=True):
    """The number that the next alert gets."""

    next: int = FIRST_NUMBER


class Early(Struct, kw_only=True):
    """A retraction whose finding has not come yet."""

    message: FindingResolved
    seen_ms: int


class TriageStep:
    """The agent of `findings`, which has one partition."""

    topic = FINDINGS

    def __init__(self, *, limits: Limits) -> None:
        self._limits = limits
        self._reset()

    def _reset(self) -> None:
        self._by_finding: dict[str, bytes] = {}
        self._latest: dict[str, bytes] = {}
        self._sources: dict[inhibition.Place, dict[bytes, None]] = {}
        self._targets: dict[inhibition.Place, dict[bytes, None]] = {}
        self._due: dict[bytes, int] = {}
        self._owing: dict[bytes, None] = {}

    # The step

    def restore(self, state: State) -> None:
        """Rebuild who is whose from the alerts."""
        self._reset()
        alerts = [state.get(Kind.ALERT, ident, Alert) for ident in state.idents(Kind.ALERT)]
        for alert in sorted((one for one in alerts if one is not None), key=lambda one: one.number):
            self._remember(alert, 0)

    def apply(self, message: Message, now_ms: int, state: State, effects: Effects) -> None:
        """Take a finding, a retraction, or what a person decided."""
        try:
            taken = _decoder.decode(message.value)
            _check(taken)
        except (msgspec.DecodeError, ValueError):
            rejected.reject(message, "message_invalid", "value", "no message of findings", now_ms, effects)
            return
        if isinstance(taken, FindingMessage):
            if canaries.is_canary(taken):
                canaries.take(taken, state)
            else:
                self._take_finding(taken, now_ms, state, effects)
        elif isinstance(taken, FindingResolved):
            self._take_retraction(taken, now_ms, state, effects)
        else:
            problem = self._take_command(taken, now_ms, state, effects)
            if problem:
                rejected.reject(message, "command_invalid", "command", problem, now_ms, effects)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """End acknowledgements, silences and quiet alerts that are due, and forget what ended long ago."""
        for ident in [ident for ident, due_ms in self._due.items() if due_ms <= now_ms]:
            alert = state.get(Kind.ALERT, ident, Alert)
            if alert is None:
                del self._due[ident]
            elif alert.status == "resolved":
                self._let_go(alert, ident, now_ms, state)
            elif lifecycle.settle(alert, now_ms=now_ms, limits=self._limits):
                self._keep(alert, now_ms, state, effects)
            else:
                self._remember(alert, now_ms)

    def reindex(self, message: Message, effects: Effects) -> None:
        """Nothing: all documents of this step belong to records."""

    def redocument(self, state: State, effects: Effects) -> None:
        """Write again what the index has not confirmed."""
        for ident in state.idents(Kind.ALERT):
            alert = state.get(Kind.ALERT, ident, Alert)
            if alert is not None and alert.doc_indexed != alert.revision:
                effects.document(alert_document(document_of(alert), alert.revision, _ALERT + ident))

    def indexed(self, document: Document, state: State) -> None:
        """Note that a document is in the index."""
        key = document.state_key or b""
        alert = state.get(Kind.ALERT, key[1:], Alert) if key[:1] == _ALERT else None
        if alert is not None and alert.doc_indexed < document.version:
            alert.doc_indexed = document.version
            state.put(Kind.ALERT, key[1:], alert)

    # Deliveries

    def owed(self, state: State) -> list[Notification]:
        """What is to be sent, oldest alert first; texts tell the alert as it is now."""
        notifications: list[Notification] = []
        for ident in self._owing:
            alert = state.get(Kind.ALERT, ident, Alert)
            if alert is not None:
                notifications += [_notification(alert, owed) for owed in alert.owed]
        return notifications + canaries.owed(state)

    def owing(self) -> int:
        """How many alerts owe a delivery."""
        return len(self._owing)

    def delivered(
        self,
        notification_id: str,
        now_ms: int,
        state: State,
        effects: Effects,
        channels: tuple[str, ...] = ("",),
    ) -> None:
        """Note that a notification got through; an id that is not owed any more changes nothing."""
        if canaries.delivered(notification_id, state):
            return
        alert_id, _, ordinal = notification_id.partition("-")
        ident = bytes.fromhex(alert_id)  # an id of ours: `owed` made it
        alert = state.get(Kind.ALERT, ident, Alert)
        if alert is not None and lifecycle.sent(alert, int(ordinal), channels, now_ms=now_ms):
            self._keep(alert, now_ms, state, effects)

    # What comes in

    def _take_finding(self, message: FindingMessage, now_ms: int, state: State, effects: Effects) -> None:
        alert = self._alert_for(message.finding_id, message.fingerprint, state)
        if alert is None or alert.superseded_by:
            source = self._source_of(message.finding, now_ms, state)
            if source is not None:
                if inhibition.inhibit(source, message, now_ms=now_ms, limits=self._limits):
                    self._settle(source, now_ms, state, effects)
                return
        if alert is None:
            alert = self._open(message, now_ms, state)
        else:
            news = lifecycle.absorb(alert, message, now_ms=now_ms, limits=self._limits)
            if alert.superseded_by:
                inhibition.revive(alert, now_ms=now_ms)
            elif not news:
                return
        early_key = _EARLY + bytes.fromhex(message.finding_id)
        early = state.get(Kind.METER, early_key, Early)
        if early is not None:
            state.forget(Kind.METER, early_key)
            lifecycle.retract(alert, early.message, now_ms=now_ms)
        self._settle(alert, now_ms, state, effects)
        self._supersede(alert, now_ms, state, effects)

    def _supersede(self, alert: Alert, now_ms: int, state: State, effects: Effects) -> None:
        """End the alerts that were told before this one and have its cause."""
        idents = [ident for place in inhibition.source_places(alert.finding) for ident in self._targets.get(place, ())]
        others = [other for other in (state.get(Kind.ALERT, ident, Alert) for ident in idents) if other is not None]
        ended = [one for one in others if inhibition.supersedes(alert, one, now_ms=now_ms, limits=self._limits)]
        for other in ended:
            inhibition.supersede(other, alert, now_ms=now_ms, limits=self._limits)
            self._settle(other, now_ms, state, effects)
        if ended:
            self._settle(alert, now_ms, state, effects)

    def _take_retraction(self, message: FindingResolved, now_ms: int, state: State, effects: Effects) -> None:
        ident = self._by_finding.get(message.finding_id)
        alert = None if ident is None else state.get(Kind.ALERT, ident, Alert)
        if alert is None:
            key = _EARLY + bytes.fromhex(message.finding_id)
            early = state.get(Kind.METER, key, Early)
            if early is None or early.message.retracted < message.retracted:
                state.put(Kind.METER, key, Early(message=message, seen_ms=now_ms))
        elif lifecycle.retract(alert, message, now_ms=now_ms):
            explained = alert.count == 0 and alert.finding.rule_id not in lifecycle.STATES
            released = list(alert.inhibited.values()) if explained else []
            if released:
                alert.inhibited = {}
            self._settle(alert, now_ms, state, effects)
            for inhibited in released:  # what told of their cause was explained; they were not
                self._take_finding(inhibited, now_ms, state, effects)

    def _take_command(self, command: Command, now_ms: int, state: State, effects: Effects) -> str:
        """Returns what is wrong with the command, if anything."""
        if command.act != "resolve" and (command.until_ms is None or command.until_ms <= now_ms):
            return "it has no end, or one that has passed"
        try:
            alert = state.get(Kind.ALERT, bytes.fromhex(command.alert_id), Alert)
        except ValueError:
            alert = None
        if alert is None:
            return "there is no such alert"
        if lifecycle.obey(alert, command, now_ms=now_ms):
            self._settle(alert, now_ms, state, effects)
        return ""

    def _alert_for(self, finding_id: str, fingerprint: str, state: State) -> Alert | None:
        """The alert that holds this finding, or the one of its fingerprint that is not resolved."""
        ident = self._by_finding.get(finding_id)
        if ident is not None:
            return state.get(Kind.ALERT, ident, Alert)
        latest = self._latest.get(fingerprint)
        alert = None if latest is None else state.get(Kind.ALERT, latest, Alert)
        return None if alert is None or alert.status == "resolved" else alert

    def _source_of(self, finding: Finding, now_ms: int, state: State) -> Alert | None:
        """The oldest open alert that tells of this finding's cause already, if one does."""
        place = inhibition.target_place(finding)
        if place is None:
            return None
        found = [state.get(Kind.ALERT, ident, Alert) for ident in self._sources.get(place, ())]
        able = [
            one
            for one in found
            if one is not None and inhibition.inhibits(one, finding, now_ms=now_ms, limits=self._limits)
        ]
        return min(able, key=lambda one: one.number, default=None)

    def _open(self, message: FindingMessage, now_ms: int, state: State) -> Alert:
        numbers = state.get(Kind.METER, _NUMBERS, Numbers) or Numbers()
        alert_id = grouping.alert_id(bytes.fromhex(message.fingerprint), message.finding_id)
        alert = lifecycle.opened(message, alert_id=alert_id, number=numbers.next, now_ms=now_ms)
        before = self._latest.get(message.fingerprint)
        earlier = None if before is None else state.get(Kind.ALERT, before, Alert)
        if earlier is not None:
            alert.silenced_by, alert.silenced_until_ms = earlier.silenced_by, earlier.silenced_until_ms
        numbers.next += 1
        state.put(Kind.METER, _NUMBERS, numbers)
        return alert

    # Records

    def _settle(self, alert: Alert, now_ms: int, state: State, effects: Effects) -> None:
        lifecycle.settle(alert, now_ms=now_ms, limits=self._limits)
        self._keep(alert, now_ms, state, effects)

    def _keep(self, alert: Alert, now_ms: int, state: State, effects: Effects) -> None:
        ident = bytes.fromhex(alert.alert_id)
        alert.revision += 1
        state.put(Kind.ALERT, ident, alert)
        self._remember(alert, now_ms)
        effects.document(alert_document(document_of(alert), alert.revision, _ALERT + ident))

    def _remember(self, alert: Alert, now_ms: int) -> None:
        ident = bytes.fromhex(alert.alert_id)
        for finding_id in alert.told:
            self._by_finding[finding_id] = ident
        self._latest[alert.fingerprint] = ident
        for book, place in self._places(alert):
            book.setdefault(place, {})[ident] = None
        self._due[ident] = lifecycle.due_ms(alert, now_ms=now_ms, limits=self._limits)
        if alert.owed:
            self._owing[ident] = None
        else:
            self._owing.pop(ident, None)

    def _places(self, alert: Alert) -> Iterator[tuple[dict[inhibition.Place, dict[bytes, None]], inhibition.Place]]:
        """Where the alert is found by what it may inhibit, and by what may inhibit it."""
        for place in inhibition.source_places(alert.finding):
            yield self._sources, place
        target = inhibition.target_place(alert.finding)
        if target is not None:
            yield self._targets, target

    def _let_go(self, alert: Alert, ident: bytes, now_ms: int, state: State) -> None:
        if alert.owed or alert.doc_indexed != alert.revision:
            self._due[ident] = now_ms + _RETRY_MS
            return
        for finding_id in alert.told:
            self._by_finding.pop(finding_id, None)
        if self._latest.get(alert.fingerprint) == ident:
            del self._latest[alert.fingerprint]
        for book, place in self._places(alert):
            if ident in book.get(place, ()):
                del book[place][ident]
                if not book[place]:
                    del book[place]
        del self._due[ident]
        state.forget(Kind.ALERT, ident)
        for key in state.idents(Kind.METER):
            early = state.get(Kind.METER, key, Early) if key.startswith(_EARLY) else None
            if early is not None and now_ms - early.seen_ms >= self._limits.quiet_ms:
                state.forget(Kind.METER, key)


def _check(taken: FindingMessage | FindingResolved | Command) -> None:
    """Raise ValueError where an id is not hex."""
    if not isinstance(taken, Command):
        bytes.fromhex(taken.finding_id)
        bytes.fromhex(taken.fingerprint)


def document_of(alert: Alert) -> dict[str, Any]:
    """The fields of the alert's document."""
    finding = alert.finding
    return {
        "alert_id": alert.alert_id,
        "number": alert.name,
        "rule_id": finding.rule_id,
        "title": finding.title,
        "severity": finding.severity,
        "status": alert.status,
        "count": alert.count,
        "first_at": rfc3339_ms(alert.first_ms),
        "last_at": rfc3339_ms(alert.last_ms),
        "opened_at": rfc3339_ms(alert.opened_ms),
        "updated_at": rfc3339_ms(alert.heard_ms),
        "tenant": finding.tenant,
        "key": finding.key,
        "principal": finding.principal,
        "who": finding.who,
        "summary": finding.summary,
        "sure": finding.sure,
        "first_step": finding.first_step,
        "runbook": text.runbook(alert),
        "facts": finding.facts | _decisions(alert),
        "evidence": [{"kind": one.kind, "id": one.id, "at": rfc3339_ms(one.at_ms)} for one in finding.evidence],
        "text": text.render(alert),
        "delivered": [
            {"channel": one.channel, "kind": one.kind, "at": rfc3339_ms(one.at_ms)} for one in alert.delivered
        ],
    }


def _decisions(alert: Alert) -> dict[str, str]:
    """Who decided what, until when."""
    decided = {"resolved_by": alert.resolved_by} if alert.status == "resolved" else {}
    if alert.superseded_by:
        decided["superseded_by"] = alert.superseded_by
    if alert.inhibited:
        decided["inhibits"] = ", ".join(sorted({one.finding.rule_id for one in alert.inhibited.values()}))
    if alert.acknowledged_by:
        decided["acknowledged_by"] = alert.acknowledged_by
        decided["acknowledged_until"] = rfc3339_ms(alert.acknowledged_until_ms)
    if alert.silenced_by:
        decided["silenced_by"] = alert.silenced_by
        decided["silenced_until"] = rfc3339_ms(alert.silenced_until_ms)
    return decided


def _notification(alert: Alert, owed: lifecycle.Owed) -> Notification:
    return Notification(
        id=f"{alert.alert_id}-{owed.ordinal}",
        alert_id=alert.alert_id,
        kind=owed.kind,
        severity=alert.severity,
        subject=text.subject(alert, owed),
        text=text.notice(alert, owed),
        alert=document_of(alert),
    )
