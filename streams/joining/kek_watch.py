"""The KEKs of one partition of `correlate`: each one's history, wraps under a disabled one, and what contradicts.

1. A use of a KEK, and each claim of one, is noted in its history; so is each act that succeeded.
2. A wrap is judged by all acts that are known, and again when a late one comes, as long as its record is kept.
3. After each change what contradicts is compared with what was told: the new is told, what is over is taken back.
"""

from typing import Final

from alerts import rules
from alerts.model import AccessOutcome, KekAccess, KekUseStatus, VaultAccess
from alerts.thresholds import DAY_MS, MINUTE_MS, Limits
from streams.feeds.vaults import VaultDeclarations
from streams.joining.correlate import Claim, partition_key
from streams.joining.joinstate import UseState
from streams.joining.kek_drift import drifts, finding_of
from streams.joining.kek_history import KekHistory, ToldDrift, is_wrap
from streams.joining.standing import StandingFindings
from streams.messages import Effects
from streams.state import Kind, State

FORGET_MS: Final = 400 * DAY_MS
"""A KEK that nobody used or touched for this long is forgotten: longer than any cryptoperiod of a year."""
AGAIN_MS: Final = DAY_MS
"""A contradiction that lasts is told again this often, as another hit, so that its alert does not close over it."""
_JUDGE_MS: Final = 5 * MINUTE_MS
"""What only time brings is looked for this often."""


class KekWatch:
    """Follows the KEKs of one partition.

    Args:
        findings: the book of the join.
        limits: how long things may take.
        declared: the KEKs that there are; None = nobody said.
        compare: False where there are no application events: then nothing contradicts the vault's records.
    """

    def __init__(
        self, *, findings: StandingFindings, limits: Limits, declared: VaultDeclarations | None, compare: bool
    ) -> None:
        self._findings = findings
        self._limits = limits
        self._declared = declared
        self._compare = compare
        self._wraps: dict[bytes, dict[bytes, None]] = {}
        self._judged_ms = 0

    def restored(self, ident: bytes, known: UseState) -> None:
        """Remember a kept record."""
        if is_wrap(known.use):
            self._wraps.setdefault(_key(known), {})[ident] = None

    def take_record(self, ident: bytes, known: UseState, now_ms: int, state: State, effects: Effects) -> None:
        """Note a vault record, and judge what it tells of."""
        key = _key(known)
        history = self._history(key, state) if known.use.outcome == AccessOutcome.SUCCEEDED else None
        if history is None:
            return
        if known.act is None:
            if history.note_time(known.use.time_us // 1000):
                state.put(Kind.KEK, key, history)
            if is_wrap(known.use):
                self._wraps.setdefault(key, {})[ident] = None
                self._judge_wrap(ident, history, now_ms, state, effects)
        else:
            self._take_act(key, history, known.act, now_ms, state, effects)

    def take_news(self, news: VaultAccess, now_ms: int, state: State, effects: Effects) -> None:
        """Note what Event Grid says of a KEK: it got a version, or when one expires."""
        key = partition_key(news.vault or "", news.object_name or "")
        history = self._history(key, state)
        if history is not None:
            self._take_act(key, history, news, now_ms, state, effects)

    def _take_act(  # noqa: PLR0917 - the step's own arguments, handed on
        self, key: bytes, history: KekHistory, act: VaultAccess, now_ms: int, state: State, effects: Effects
    ) -> None:
        if history.note_act(act):
            state.put(Kind.KEK, key, history)
            for wrap in self._wraps.get(key, ()):
                self._judge_wrap(wrap, history, now_ms, state, effects)
            self._contradictions(key, history, now_ms, state, effects)

    def judged(self, known: UseState, now_ms: int, state: State, effects: Effects) -> None:
        """Note whether an act was explained."""
        if known.act is None:
            return
        key = _key(known)
        history = state.get(Kind.KEK, key, KekHistory)
        explained = None if known.use.reason == "no_batches" else _EXPLAINED.get(known.use.status)
        if history is not None and history.explain(known.use.id, explained=explained):
            state.put(Kind.KEK, key, history)
            self._contradictions(key, history, now_ms, state, effects)

    def take_claim(self, claim: Claim, now_ms: int, state: State, effects: Effects) -> None:
        """Note that a service used a KEK, or tried to."""
        key = partition_key(claim.vault, claim.name)
        history = self._history(key, state)
        if history is None:
            return
        version = None if claim.version is None else claim.version.lower()
        succeeded = claim.outcome == "succeeded"
        if history.note_use(version, claim.operation, claim.effective_ms, claim.event_id, succeeded=succeeded):
            state.put(Kind.KEK, key, history)
            self._contradictions(key, history, now_ms, state, effects)

    def forget(self, ident: bytes, known: UseState) -> None:
        """Let go of a record."""
        key = _key(known)
        wraps = self._wraps.get(key)
        if wraps is not None:
            wraps.pop(ident, None)
            if not wraps:
                del self._wraps[key]

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Look for what only time brings."""
        if now_ms - self._judged_ms < _JUDGE_MS:
            return
        self._judged_ms = now_ms
        for key in state.idents(Kind.KEK):
            history = state.get(Kind.KEK, key, KekHistory)
            if history is None:
                continue
            if not history.told and history.latest_ms() + FORGET_MS <= now_ms:
                state.forget(Kind.KEK, key)
            else:
                self._contradictions(key, history, now_ms, state, effects)

    def _history(self, key: bytes, state: State) -> KekHistory | None:
        """Return what is known of a KEK; None for a new one where too many are: names can be invented."""
        known = state.get(Kind.KEK, key, KekHistory)
        if known is None and state.count(Kind.KEK) < self._limits.keks:
            return KekHistory()
        return known

    def _judge_wrap(self, ident: bytes, history: KekHistory, now_ms: int, state: State, effects: Effects) -> None:
        known = state.get(Kind.USE, ident, UseState)
        if known is None or not history.acts:
            return
        found = rules.run(KekAccess(use=known.use, changes=history.changes()), self._limits)
        if found and not known.disabled:
            known.disabled = [self._findings.report(finding, now_ms, state, effects) for finding in found]
        elif known.disabled and not found:
            hits, known.disabled = known.disabled, []
            for hit in hits:
                self._findings.retract(hit, "a record that came late shows it enabled", now_ms, state, effects)
        else:
            return
        state.put(Kind.USE, ident, known)

    def _contradictions(self, key: bytes, history: KekHistory, now_ms: int, state: State, effects: Effects) -> None:
        if not self._compare:
            return
        kek, told = key.decode(), history.told
        found = drifts(history, declared=self._is_declared(kek), now_ms=now_ms, limits=self._limits)
        current = {drift.key: drift for drift in found}
        over = [name for name in told if name not in current]
        due = [name for name in current if name not in told or now_ms - told[name].at_ms >= AGAIN_MS]
        for name in over:
            known = told.pop(name)
            for _ in range(known.hits):
                hit = (known.fingerprint, known.finding_id)
                self._findings.retract(hit, "the KEK and its use agree again", now_ms, state, effects)
        for name in due:
            fingerprint, finding_id = self._findings.report(finding_of(kek, current[name]), now_ms, state, effects)
            known = told.setdefault(name, ToldDrift(fingerprint, finding_id, now_ms, hits=0))
            known.hits = known.hits + 1 if known.finding_id == finding_id else 1
            known.finding_id, known.at_ms = finding_id, now_ms
        if over or due:
            state.put(Kind.KEK, key, history)

    def _is_declared(self, kek: str) -> bool | None:
        vault, _, name = kek.partition("/")
        known = None if self._declared is None else self._declared.vaults.get(vault)
        return name in known.keks if known is not None and known.keks else None


_EXPLAINED: Final = {KekUseStatus.EXPLAINED: True, KekUseStatus.UNEXPLAINED: False}


def _key(known: UseState) -> bytes:
    return partition_key(known.use.vault, known.use.name)
