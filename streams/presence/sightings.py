"""Which vaults speak: the vault agents tell the one partition of `sources`, and it judges silence for all of them.

A vault's records are spread over the partitions of `vault-access` by key, so no partition of that topic can tell a
silent vault from one whose records go elsewhere. Only the vault's own log counts: the Activity Log goes on when that
is cut, and Event Grid needs no diagnostic setting. What the Activity Log tells is why a vault may be silent.
"""

from typing import Final, Literal

import msgspec
from msgspec import Struct

from alerts.model import AccessOutcome, Finding, VaultAccess
from alerts.thresholds import DAY_MS, HOUR_MS, MINUTE_MS
from streams.feeds.vaults import Acted, Seen, VaultDeclarations, coverage_findings, silent_finding
from streams.findings import FindingBook
from streams.messages import SOURCES, Effects
from streams.state import Kind, State
from streams.vaultlogs.activity import SETTING_WRITTEN
from streams.vaultlogs.fields import Shape

TELL_MS: Final = 10 * MINUTE_MS
"""Each partition names a vault at most this often; far below the shortest quiet time, an hour."""
JUDGE_MS: Final = MINUTE_MS
AGAIN_MS: Final = DAY_MS
"""What goes on is told again this often, as another hit of its alert."""
ABSENT_MS: Final = HOUR_MS
"""Where nobody judged for this long, the monitor itself was away: silence is counted from its return."""
FORGET_MS: Final = 31 * DAY_MS
MAX_VAULTS: Final = 4_096
OWN_SHAPES: Final = frozenset({Shape.ENVELOPE, Shape.AZURE_DIAGNOSTICS, Shape.AZKV_AUDIT_LOGS, Shape.MANAGED_HSM})
SETTING_DELETED: Final = "microsoft.insights/diagnosticsettings/delete"
_TOLD: Final = b"sighted:"
_ACTED: Final = b"acted:"
_VAULT: Final = b"vault:"
_WATCH: Final = b"watch"


class VaultSeen(Struct, frozen=True, kw_only=True, tag_field="type", tag="vault"):
    """A vault's own log spoke; `append_ms` is when its record came into our log.

    With `activity` it is the Activity Log that spoke of the vault: of anything, or of its diagnostic setting, which was
    written (with the audit log on or off, or the record does not say) or deleted.
    """

    v: Literal[1] = 1
    vault: str
    append_ms: int
    activity: Literal["", "seen", "on", "off", "written", "deleted"] = ""


class Told(Struct, array_like=True):
    """When a partition of `vault-access` last named a vault."""

    append_ms: int


class KnownVault(Struct, kw_only=True, omit_defaults=True):
    """What is known of a vault, and which findings about it were told last when (0 = not open)."""

    first_ms: int | None = None
    last_ms: int | None = None
    silent_ms: int = 0
    undeclared_ms: int = 0
    acted_ms: int = 0
    setting: str = ""
    setting_ms: int = 0


class Watch(Struct):
    """Since when silence counts, and when it was judged last."""

    since_ms: int
    judged_ms: int


_encode = msgspec.json.Encoder().encode


def tell(access: VaultAccess, append_ms: int, state: State, effects: Effects) -> None:
    """Name the vault of an accepted record to the sources agent, unless that was done a moment ago."""
    if access.vault is None or access.shape not in {*OWN_SHAPES, Shape.ACTIVITY_LOG}:
        return
    activity = _activity(access) if access.shape == Shape.ACTIVITY_LOG else ""
    ident = (_ACTED if activity else _TOLD) + access.vault.encode()
    told = state.get(Kind.METER, ident, Told)
    if told is None and state.count(Kind.METER) > MAX_VAULTS:
        return
    if told is None or append_ms - told.append_ms >= TELL_MS or activity not in {"", "seen"}:
        state.put(Kind.METER, ident, Told(append_ms))
        seen = VaultSeen(vault=access.vault, append_ms=append_ms, activity=activity)
        effects.send(SOURCES, access.vault.encode(), _encode(seen))


def _activity(access: VaultAccess) -> Literal["seen", "on", "off", "written", "deleted"]:
    if access.outcome is AccessOutcome.SUCCEEDED and access.operation == SETTING_DELETED:
        return "deleted"
    if access.outcome is AccessOutcome.SUCCEEDED and access.operation == SETTING_WRITTEN:
        return "written" if access.audit_log is None else "on" if access.audit_log else "off"
    return "seen"


class VaultWatch:
    """The judge of all vaults, part of the sources agent; its findings are in that agent's book."""

    def __init__(self, declared: VaultDeclarations, book: FindingBook) -> None:
        self._declared = declared
        self._book = book
        self._known: dict[str, KnownVault] = {}
        self._watch: Watch | None = None

    def restore(self, state: State) -> None:
        """Read back what is known."""
        self._watch = state.get(Kind.METER, _WATCH, Watch)
        self._known = {}
        for ident in state.idents(Kind.METER):
            known = state.get(Kind.METER, ident, KnownVault) if ident.startswith(_VAULT) else None
            if known is not None:
                self._known[ident.removeprefix(_VAULT).decode()] = known

    def take(self, seen: VaultSeen, now_ms: int, state: State, effects: Effects) -> None:
        """Note that a vault spoke; where it had been silent, its alert is resolved."""
        known = self._known.get(seen.vault)
        if known is None:
            if len(self._known) >= MAX_VAULTS:
                return
            known = self._known[seen.vault] = KnownVault()
        if seen.activity:
            known.acted_ms = max(known.acted_ms, seen.append_ms)
            if seen.activity != "seen" and seen.append_ms >= known.setting_ms:
                known.setting, known.setting_ms = seen.activity, seen.append_ms
            self._put(seen.vault, known, state)
            return
        known.first_ms = seen.append_ms if known.first_ms is None else min(known.first_ms, seen.append_ms)
        known.last_ms = max(known.last_ms or 0, seen.append_ms)
        if known.silent_ms and seen.vault in self._declared.vaults:
            silence = silent_finding(self._declared.vaults[seen.vault], None, at_ms=seen.append_ms)
            self._book.retract(silence, "the vault's log speaks again", now_ms, state, effects)
            known.silent_ms = 0
        self._put(seen.vault, known, state)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Judge once a minute."""
        watch = self._watch
        if watch is None:
            watch = self._watch = Watch(now_ms, now_ms)
        elif now_ms - watch.judged_ms < JUDGE_MS:
            return
        elif now_ms - watch.judged_ms >= ABSENT_MS:
            watch.since_ms = now_ms
        watch.judged_ms = now_ms
        state.put(Kind.METER, _WATCH, watch)
        spoke = {
            name: Seen(known.first_ms, known.last_ms)
            for name, known in self._known.items()
            if known.first_ms is not None and known.last_ms is not None
        }
        acted = {
            name: Acted(known.acted_ms, known.setting, known.setting_ms)
            for name, known in self._known.items()
            if known.acted_ms
        }
        since_ms = watch.since_ms
        for finding in coverage_findings(self._declared, spoke, since_ms=since_ms, now_ms=now_ms, acted=acted):
            self._report(finding, now_ms, state, effects)
        self._forget(now_ms, state)

    def _report(self, finding: Finding, now_ms: int, state: State, effects: Effects) -> None:
        known = self._known.setdefault(finding.key, KnownVault())
        silent = finding.rule_id == "vault_silent"
        told_ms = known.silent_ms if silent else known.undeclared_ms
        if told_ms and now_ms - told_ms < AGAIN_MS:
            return
        if silent:
            known.silent_ms = now_ms
        else:
            known.undeclared_ms = now_ms
        self._put(finding.key, known, state)
        self._book.report(finding, now_ms, state, effects)

    def _forget(self, now_ms: int, state: State) -> None:
        """Forget vaults that nobody declared and that are gone."""
        for name, known in list(self._known.items()):
            last_ms = max(known.last_ms or 0, known.acted_ms)
            if name not in self._declared.vaults and now_ms - last_ms >= FORGET_MS:
                del self._known[name]
                state.forget(Kind.METER, _VAULT + name.encode())

    @staticmethod
    def _put(vault: str, known: KnownVault, state: State) -> None:
        state.put(Kind.METER, _VAULT + vault.encode(), known)
