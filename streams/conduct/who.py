"""The who agent: what each principal does in the vaults, against its own past. Pure.

1. accesses are added up in bins of five minutes; a bin is judged when nothing of it can still come (lateness), and what
comes later is judged on its own; 2. rules see each vault's part of it beside the baseline; 3. all signs of a principal
in a vault become one incident until an hour was quiet; 4. the bin is learned. Order of arrival within the lateness
changes nothing. Challenges are counted by address; people's commands change baselines.
"""

from heapq import heapify, heappop, heappush
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from alerts import rules
from alerts.conduct import Conduct, incident
from alerts.model import Finding, Severity
from alerts.thresholds import DAY_MS, HOUR_MS, Limits
from streams import rejected
from streams.conduct.addresses import Addresses
from streams.conduct.baseline_commands import obey
from streams.conduct.baselines import Incident, Profile, is_stale, learn
from streams.conduct.bins import Bin, add
from streams.conduct.conducts import Past, observe
from streams.conduct.observations import (
    Answered,
    BaselineCommand,
    Challenged,
    Observation,
    Opened,
    Seen,
    address_key,
    decode,
    encode,
)
from streams.findings import FindingBook
from streams.index.port import Document
from streams.messages import WHO, Effects, Message
from streams.state import Kind, State

METER: Final = b"who"
UNREADABLE: Final = "rejected_rate"
_TITLES: Final = {detection.rule.id: detection.rule.title for detection in rules.ALL_RULES}
_RANKS: Final = tuple(Severity)
_HOUR_US: Final = HOUR_MS * 1000
_HOUR_S: Final = HOUR_MS // 1000


class WhoMeter(Struct, kw_only=True, omit_defaults=True):
    """Since which hour each vault is known, and what was not judged as it should: late, out of range, too many."""

    vaults: dict[str, int] = {}
    late: int = 0
    out_of_range: int = 0
    rejected: int = 0
    addresses_refused: int = 0


class WhoStep:
    """The step of the topic `who` for one partition."""

    topic = WHO

    def __init__(self, *, limits: Limits, joined: bool = True, administrators: frozenset[str] = frozenset()) -> None:
        """Make the step.

        Args:
            limits: what is judged by.
            joined: a join judges every use of a key, so that a first use is not told here as well.
            administrators: identities, in lower case, of our services that may change keys: the join holds each of
                their acts on a key against their events.
        """
        self._limits = limits
        self._joined = joined
        self._administrators = administrators
        self._book = FindingBook()
        self._addresses = Addresses(limits=limits, book=self._book)
        self._due: list[tuple[int, bytes]] = []
        self._expiry: list[tuple[int, bytes]] = []

    def restore(self, state: State) -> None:
        """Rebuild the order in which bins are judged and baselines expire."""
        self._book.restore(state)
        self._addresses.restore(state)
        bins = ((state.get(Kind.BIN, ident, Bin), ident) for ident in state.idents(Kind.BIN))
        self._due = [(one.due_ms, ident) for one, ident in bins if one is not None]
        profiles = ((state.get(Kind.PRINCIPAL, ident, Profile), ident) for ident in state.idents(Kind.PRINCIPAL))
        self._expiry = [(self._expires_ms(one.last_s), ident) for one, ident in profiles if one is not None]
        heapify(self._due)
        heapify(self._expiry)

    def apply(self, message: Message, now_ms: int, state: State, effects: Effects) -> None:
        """Take one message; nothing is judged before its time has passed."""
        meter = state.get(Kind.METER, METER, WhoMeter) or WhoMeter()
        try:
            said = decode(message.value)
        except (msgspec.DecodeError, RecursionError):
            meter.rejected += 1
            state.put(Kind.METER, METER, meter)
            rejected.reject(message, UNREADABLE, "value", "no message of who, version 1", now_ms, effects)
            return
        self._take(said, message.append_ms, meter, now_ms, state, effects)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Judge the bins that are due, oldest first, and forget what has had its time."""
        while self._due and self._due[0][0] <= now_ms:
            _, ident = heappop(self._due)
            one = state.get(Kind.BIN, ident, Bin)
            if one is None or one.due_ms > now_ms:
                continue
            if one.judged:
                state.forget(Kind.BIN, ident)
            else:
                self._judge(ident, one, now_ms, state, effects)
        self._addresses.tick(now_ms, state, effects)
        while self._expiry and self._expiry[0][0] <= now_ms:
            self._expire(heappop(self._expiry)[1], now_ms, state)
        self._book.tick(now_ms, state, effects)

    def reindex(self, message: Message, effects: Effects) -> None:
        """Append the document of a message that could not be read; there are no others."""
        try:
            decode(message.value)
        except (msgspec.DecodeError, RecursionError):
            rejected.document(message, UNREADABLE, "value", "no message of who, version 1", effects)

    def redocument(self, state: State, effects: Effects) -> None:
        """There are no documents that change."""

    def indexed(self, document: Document, state: State) -> None:
        """The same."""

    def _take(  # noqa: PLR0917 - the step's own arguments, handed on
        self, said: Observation, append_ms: int, meter: WhoMeter, now_ms: int, state: State, effects: Effects
    ) -> None:
        if isinstance(said, Seen):
            if self._in_range(said.time_us, append_ms, meter, state):
                self._know(said.vault, said.time_us // _HOUR_US, meter, state, effects)
                self._add(said, meter, now_ms, state)
        elif isinstance(said, Challenged):
            if self._in_range(said.time_us, append_ms, meter, state) and not self._addresses.challenged(
                said, now_ms, state
            ):
                meter.addresses_refused += 1
                state.put(Kind.METER, METER, meter)
        elif isinstance(said, Answered):
            self._addresses.answered(said, state)
        elif isinstance(said, Opened):
            self._know(said.vault, said.hour, meter, state, None)
        elif isinstance(said, BaselineCommand):
            self._obey(said, append_ms, state)

    def _in_range(self, time_us: int, append_ms: int, meter: WhoMeter, state: State) -> bool:
        """Whether a record's own time may be believed at all: it decides what is waited for."""
        early, late = append_ms - self._limits.past_days * DAY_MS, append_ms + self._limits.future_days * DAY_MS
        if early <= time_us // 1000 <= late:
            return True
        meter.out_of_range += 1
        state.put(Kind.METER, METER, meter)
        return False

    def _know(self, vault: str, hour: int, meter: WhoMeter, state: State, effects: Effects | None) -> None:
        """Remember the vault's earliest hour; who saw it itself tells the other partitions."""
        known = meter.vaults.get(vault)
        if (known is None and len(meter.vaults) >= self._limits.vaults) or (known is not None and known <= hour):
            return
        meter.vaults[vault] = hour
        state.put(Kind.METER, METER, meter)
        if effects is not None:
            effects.broadcast(WHO, encode(Opened(v=1, vault=vault, hour=hour)))

    def _add(self, said: Seen, meter: WhoMeter, now_ms: int, state: State) -> None:
        limits = self._limits
        number = said.time_us // (limits.bin_ms * 1000)
        due_ms = (number + 1) * limits.bin_ms + limits.lateness_ms + limits.lateness_grace_ms
        late = now_ms >= due_ms
        if late:
            due_ms = now_ms + limits.lateness_ms
            meter.late += 1
            state.put(Kind.METER, METER, meter)
        ident = _bin_ident(said.principal, number, late=late)
        one = state.get(Kind.BIN, ident, Bin)
        if one is None or one.judged:
            one = Bin(start_s=number * limits.bin_ms // 1000, due_ms=due_ms)
            heappush(self._due, (due_ms, ident))
        add(one, said, limits)
        state.put(Kind.BIN, ident, one)

    def _judge(self, ident: bytes, one: Bin, now_ms: int, state: State, effects: Effects) -> None:
        limits = self._limits
        principal, number, late = _parts(ident)
        key = principal.encode()
        profile = state.get(Kind.PRINCIPAL, key, Profile)
        if profile is None or is_stale(profile.last_s, one.start_s, limits):
            reset_s = {} if profile is None else profile.reset_s
            profile = Profile(first_s=one.start_s, last_s=one.start_s, reset_s=reset_s)
            heappush(self._expiry, (self._expires_ms(one.start_s), key))
        meter = state.get(Kind.METER, METER, WhoMeter) or WhoMeter()
        previous = state.get(Kind.BIN, _bin_ident(principal, number - 1, late=late), Bin)
        vaults_s = {vault: hour * _HOUR_S for vault, hour in meter.vaults.items()}
        past = Past(previous, vaults_s, self._joined, self._joined and principal in self._administrators)
        conducts = observe(principal, profile, one, past, limits)
        for conduct in conducts:
            self._report(profile, conduct, one.start_s, now_ms, state, effects)
        learn(profile, one, previous, conducts, limits)
        state.put(Kind.PRINCIPAL, key, profile)
        for address in one.addresses:
            effects.send(WHO, address_key(address), encode(Answered(v=1, address=address, bin=number)))
        one.judged = True
        one.due_ms += limits.bin_ms + 1  # the next bin looks back at it
        state.put(Kind.BIN, ident, one)
        heappush(self._due, (one.due_ms, ident))

    def _report(  # noqa: PLR0917 - the step's own arguments, handed on
        self, profile: Profile, conduct: Conduct, at_s: int, now_ms: int, state: State, effects: Effects
    ) -> None:
        found = rules.run(conduct, self._limits)
        signs = [finding for finding in found if finding.rule_id in _TITLES]
        reported = [finding for finding in found if finding.rule_id not in _TITLES]
        told = self._gathered(profile, conduct, signs, at_s) if signs else None
        for finding in [*reported, *([] if told is None else [told])]:
            self._book.report(finding, now_ms, state, effects)

    def _gathered(self, profile: Profile, conduct: Conduct, signs: list[Finding], at_s: int) -> Finding | None:
        """Add signs to the vault's incident; None where they say nothing that was not told within the hour."""
        known = profile.incidents.get(conduct.vault)
        if known is not None and (at_s - known.last_s) * 1000 > self._limits.incident_quiet_ms:
            known = None
        finding = incident(signs, conduct, before=frozenset(() if known is None else known.signs))
        names = finding.facts["signs"].split(", ")
        if known is None:
            profile.incidents[conduct.vault] = Incident(finding.rule_id, finding.severity.rank, names, at_s, at_s)
            return finding
        fresh = names != known.signs or finding.severity.rank > known.rank or at_s - known.told_s >= _HOUR_S
        known.signs, known.rank = names, max(known.rank, finding.severity.rank)
        known.last_s = max(known.last_s, at_s)
        if not fresh:
            return None
        known.told_s = at_s
        return replace(finding, rule_id=known.rule_id, title=_TITLES[known.rule_id], severity=_RANKS[known.rank])

    def _obey(self, said: BaselineCommand, append_ms: int, state: State) -> None:
        key = said.principal.encode()
        profile = state.get(Kind.PRINCIPAL, key, Profile)
        if profile is not None and obey(profile, said, append_ms // 1000):
            state.put(Kind.PRINCIPAL, key, profile)

    def _expire(self, ident: bytes, now_ms: int, state: State) -> None:
        profile = state.get(Kind.PRINCIPAL, ident, Profile)
        if profile is None:
            return
        expires_ms = self._expires_ms(profile.last_s)
        if expires_ms > now_ms:
            heappush(self._expiry, (expires_ms, ident))
        else:
            state.forget(Kind.PRINCIPAL, ident)

    def _expires_ms(self, last_s: int) -> int:
        return last_s * 1000 + self._limits.baseline_keep_ms + DAY_MS


def _bin_ident(principal: str, number: int, *, late: bool) -> bytes:
    return principal.encode() + number.to_bytes(5, "big") + (b"\x01" if late else b"\x00")


def _parts(ident: bytes) -> tuple[str, int, bool]:
    return ident[:-6].decode(), int.from_bytes(ident[-6:-1], "big"), ident[-1:] == b"\x01"
