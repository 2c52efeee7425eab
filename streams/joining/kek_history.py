"""What is known of one KEK: what the vault's records did to it, and what our services' events used. Pure.

A function of the set of both, whatever order they came in: acts are kept in the order of their own time, uses as the
first and the last of each version. `kek_drift` says where the two contradict each other.
"""

from bisect import insort
from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from alerts.model import AccessClass, KekChange, KekUse, VaultAccess
from cryptocore.clock import parse_rfc3339

MAX_ACTS: Final = 64
"""Successful acts of a KEK that are kept, the newest: a KEK sees a few a year."""
MAX_VERSIONS: Final = 64
USED_STEP_MS: Final = 1_000
"""The last use is kept to the second, so that a busy KEK's record is not written again for each."""
NEW_VERSION: Final = "Microsoft.KeyVault.KeyNewVersionCreated"
RENEWING: Final = frozenset({"KeyCreate", "KeyImport", "KeyRotate", "KeyRotateIfDue", NEW_VERSION})
"""What gives a KEK a new version; of the last Event Grid tells, beside the vault's log, and names the version."""


class Act(Struct, frozen=True, array_like=True, order=True):
    """One successful act, or news of one; None = the record does not say, of `explained`: not judged (yet)."""

    time: str
    access_id: str
    time_us: int
    operation: str
    version: str | None = None
    enabled: bool | None = None
    expires_ms: int | None = None
    operations: tuple[str, ...] | None = None
    principal_id: str | None = None
    explained: bool | None = None


class VersionUse(Struct, array_like=True):
    """When our services used a version: the first success, the last attempt, and for what."""

    last_ms: int
    first_ms: int | None = None
    operations: list[str] = []
    event_id: str = ""


class ToldDrift(Struct, array_like=True):
    """A contradiction that was told: by which finding, when last, and as how many of its hits."""

    fingerprint: str
    finding_id: str
    at_ms: int
    hits: int = 1


class KekHistory(Struct, kw_only=True, omit_defaults=True):
    """One KEK; `earliest_ms` is the oldest that is known of it from either side, `told` the standing contradictions.

    `forgotten`: an act was dropped for newer ones, so what was never seen proves nothing any more.
    """

    acts: list[Act] = []
    uses: dict[str, VersionUse] = {}
    earliest_ms: int | None = None
    forgotten: bool = False
    told: dict[str, ToldDrift] = {}

    def note_act(self, access: VaultAccess) -> bool:
        """Keep a successful act; returns whether it is new."""
        if any(act.access_id == access.access_id for act in self.acts):
            return False
        change = access.key_change
        act = Act(
            time=access.time,
            access_id=access.access_id,
            time_us=access.time_us,
            operation=access.operation,
            version=access.object_version,
            enabled=None if change is None else change.enabled,
            expires_ms=None if change is None else _ms(change.expires_at),
            operations=None if change is None else change.operations,
            principal_id=access.principal.id,
        )
        self.acts.append(act)
        self.acts.sort(key=_order)
        if len(self.acts) > MAX_ACTS:
            del self.acts[0]
            self.forgotten = True
        if access.access_class is AccessClass.ADMIN:
            self.note_time(access.time_us // 1000)
        return True

    def explain(self, access_id: str, *, explained: bool | None) -> bool:
        """Note what the join says of an act; returns whether that is news."""
        for at, act in enumerate(self.acts):
            if act.access_id == access_id and act.explained is not explained:
                self.acts[at] = replace(act, explained=explained)
                return True
        return False

    def note_use(self, version: str | None, operation: str, at_ms: int, event_id: str, *, succeeded: bool) -> bool:
        """Count a call that one of our services says it made; returns whether anything changed."""
        news = self.note_time(at_ms)
        at_ms -= at_ms % USED_STEP_MS
        known = self.uses.get(version or "")
        if known is None:
            known = self.uses[version or ""] = VersionUse(at_ms)
            news = True
            if len(self.uses) > MAX_VERSIONS:
                del self.uses[min(self.uses, key=lambda name: (self.uses[name].last_ms, name))]
        if at_ms > known.last_ms or not known.event_id or (at_ms == known.last_ms and event_id < known.event_id):
            known.last_ms, known.event_id, news = at_ms, event_id, True
        if succeeded and (known.first_ms is None or at_ms < known.first_ms):
            known.first_ms, news = at_ms, True
        if operation not in known.operations:
            insort(known.operations, operation)
            news = True
        return news

    def note_time(self, at_ms: int) -> bool:
        """Note that something is known of the KEK from this moment on."""
        if self.earliest_ms is not None and self.earliest_ms <= at_ms:
            return False
        self.earliest_ms = at_ms
        return True

    def latest_ms(self) -> int:
        """When something was done to it or with it last."""
        acted_ms = self.acts[-1].time_us // 1000 if self.acts else 0
        return max(acted_ms, self.earliest_ms or 0, *(use.last_ms for use in self.uses.values()))

    def changes(self) -> tuple[KekChange, ...]:
        """List what enabled, disabled or renewed the KEK, oldest first."""
        return tuple(_changes(self.acts))


def is_wrap(use: KekUse) -> bool:
    """Say whether a vault record shows something put under the KEK."""
    return use.operation in {"KeyWrap", "KeyEncrypt"} and use.outcome == "succeeded"


def tells(news: VaultAccess) -> bool:
    """Say whether Event Grid's news changes what is known of a KEK."""
    return news.operation == NEW_VERSION or news.key_change is not None


def _changes(acts: Iterable[Act]) -> Iterable[KekChange]:
    for act in acts:
        if act.operation in RENEWING:
            yield KekChange(time_us=act.time_us, enabled=None, version=act.version)
        elif act.enabled is not None:
            yield KekChange(time_us=act.time_us, enabled=act.enabled, version=act.version)


def _order(act: Act) -> tuple[str, str]:
    return act.time, act.access_id


def _ms(expires_at: str | None) -> int | None:
    return None if expires_at is None else parse_rfc3339(expires_at) // 1000
