"""How many requests this process may send to a vault: a bucket of tokens for each vault, part of it for control acts.

A vault counts for all its callers and answers 429 past its limit; a storm of unwraps must not take the last requests
from the person who rotates a key. Data uses are refused at once when their part is used up: waiting would only pile
them up. A control act waits for its turn. What the vault itself asks for (Retry-After) holds for both.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cryptocore.clock import Clock, SystemClock

RATE_PER_S: Final = 50.0
"""Requests a second in the long run. Key Vault takes 2,000 operations with HSM-backed RSA-2048 keys in 10 s from all
callers together ("Azure Key Vault service limits"): this leaves room for four processes at their limit."""
BURST: Final = 200
RESERVE: Final = 20
_LEAST_WAIT_S: Final = 0.001
CONTROL_WAIT_S: Final = 10.0
"""How long a control act waits for its turn."""


@dataclass(slots=True)
class _Vault:
    tokens: float
    at: float
    closed_until: float = 0.0


class VaultBudget:
    """Tokens for each vault, by its name.

    Args:
        rate_per_s: tokens that come back each second.
        burst: tokens at most.
        reserve: the last tokens, which only control acts (create, rotate, rewrap) may take.
    """

    def __init__(
        self,
        *,
        rate_per_s: float = RATE_PER_S,
        burst: int = BURST,
        reserve: int = RESERVE,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not 0 <= reserve < burst or rate_per_s <= 0:
            raise ValueError("a budget has a rate above 0 and a burst above its reserve")
        self._rate = rate_per_s
        self._burst = burst
        self._reserve = reserve
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._vaults: dict[str, _Vault] = {}

    async def take(self, vault: str, *, control: bool) -> bool:
        """Take a token for one request; False when there is none for it."""
        if not control:
            return self._missing_s(vault, self._reserve) <= 0 and self._spend(vault)
        deadline = self._clock.monotonic() + CONTROL_WAIT_S
        while (wait_s := self._missing_s(vault, 0)) > 0:
            if self._clock.monotonic() + wait_s > deadline:
                return False
            await self._sleep(max(wait_s, _LEAST_WAIT_S))
        return self._spend(vault)

    def used(self, vault: str, more: int) -> None:
        """Count requests that a call made beyond its first one."""
        self._filled(vault).tokens -= more

    def told_to_wait(self, vault: str, seconds: float) -> None:
        """Send nothing to a vault for as long as it asked for."""
        known = self._filled(vault)
        known.closed_until = max(known.closed_until, self._clock.monotonic() + seconds)

    def _missing_s(self, vault: str, keep: int) -> float:
        """How long until there is a token above those kept."""
        known = self._filled(vault)
        return max((keep + 1 - known.tokens) / self._rate, known.closed_until - known.at)

    def _spend(self, vault: str) -> bool:
        self._vaults[vault].tokens -= 1
        return True

    def _filled(self, vault: str) -> _Vault:
        now = self._clock.monotonic()
        known = self._vaults.setdefault(vault, _Vault(self._burst, now))
        known.tokens = min(self._burst, known.tokens + (now - known.at) * self._rate)
        known.at = now
        return known
