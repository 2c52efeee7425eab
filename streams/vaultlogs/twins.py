"""One act on a vault that two logs tell of: the vault's own and the Activity Log. Pure.

Both are kept; as a hit of a finding they count once. Two records are one act when one comes from each log, they say the
same of the same vault by the same principal with the same end, and lie a few seconds apart. How many acts a set of
records is depends on the set alone, so a record counts where it makes the number grow, whatever came first.
"""

from bisect import insort
from typing import Final

from msgspec import Struct

from alerts.model import VaultAccess
from alerts.thresholds import HOUR_MS
from streams.state import Kind, State
from streams.vaultlogs.fields import Shape

APART_US: Final = 5_000_000
"""The two logs stamp the same write some milliseconds apart; a person does not do the same twice within this."""
KEEP_US: Final = 2 * HOUR_MS * 1_000
MAX_TIMES: Final = 64
_WRITE, _DELETE, _PURGE = "write", "delete", "purge"
_ACTS: Final = {
    "VaultPut": _WRITE,
    "VaultPatch": _WRITE,
    "VaultRecover": _WRITE,
    "microsoft.keyvault/vaults/write": _WRITE,
    "microsoft.keyvault/vaults/accesspolicies/write": _WRITE,
    "VaultDelete": _DELETE,
    "microsoft.keyvault/vaults/delete": _DELETE,
    "VaultPurge": _PURGE,
    "microsoft.keyvault/locations/deletedvaults/purge/action": _PURGE,
}
PREFIX: Final = b"twins:"


class Told(Struct, array_like=True):
    """When each of the two logs told of such acts, in order (microseconds)."""

    own_us: list[int] = []
    activity_us: list[int] = []

    def acts(self) -> int:
        """Count the acts: two records are one where they pair up, the earliest with the earliest."""
        own, other, pairs = 0, 0, 0
        while own < len(self.own_us) and other < len(self.activity_us):
            apart_us = self.own_us[own] - self.activity_us[other]
            if abs(apart_us) <= APART_US:
                own, other, pairs = own + 1, other + 1, pairs + 1
            elif apart_us < 0:
                own += 1
            else:
                other += 1
        return len(self.own_us) + len(self.activity_us) - pairs


def is_news(access: VaultAccess, state: State) -> bool:
    """Note a record, and say whether it tells of an act that no other record tells of."""
    act = _ACTS.get(access.operation)
    if act is None or access.vault is None or access.outcome is None:
        return True
    ident = PREFIX + "/".join((act, access.outcome, access.vault, access.principal.id or "")).encode()
    told = state.get(Kind.METER, ident, Told) or Told()
    before = told.acts()
    times = told.activity_us if access.shape == Shape.ACTIVITY_LOG else told.own_us
    insort(times, access.time_us)
    after = told.acts()
    for kept in (told.own_us, told.activity_us):
        oldest_us = max(*told.own_us, *told.activity_us, 0) - KEEP_US
        kept[:] = [at_us for at_us in kept if at_us >= oldest_us][-MAX_TIMES:]
    state.put(Kind.METER, ident, told)
    return after > before


def prune(now_ms: int, state: State) -> None:
    """Forget what was told long ago."""
    for ident in state.idents(Kind.METER):
        if ident.startswith(PREFIX):
            told = state.get(Kind.METER, ident, Told)
            if told is None or max(*told.own_us, *told.activity_us, 0) < (now_ms * 1_000) - 12 * KEEP_US:
                state.forget(Kind.METER, ident)
