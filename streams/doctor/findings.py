"""What a look says: what was looked at, how it is, and what to do about it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from enum import StrEnum
from typing import Final

from msgspec import Struct

LOOK_WITHIN_S: Final = 30.0
"""A look that takes longer is itself a finding."""
CLOCKS_APART_MS: Final = 2_000
"""Between this machine and a server. The format allows a seal 2 min ahead of the log; trouble begins long before."""


class Verdict(StrEnum):
    """How something is; `doctor` ends with an error for WRONG only."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    SKIPPED = "skipped"


class Finding(Struct, frozen=True):
    """One thing looked at.

    Attributes:
        area: files, log, index, service, monitor.
        subject: what was looked at.
        verdict: how it is.
        says: what was found, without any secret.
        do: what a person should do; empty when nothing.
    """

    area: str
    subject: str
    verdict: Verdict
    says: str
    do: str = ""


class Area:
    """Findings of one area, in the order they are made."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.findings: list[Finding] = []

    def ok(self, subject: str, says: str) -> None:
        self.findings.append(Finding(self.name, subject, Verdict.OK, says))

    def warning(self, subject: str, says: str, do: str) -> None:
        self.findings.append(Finding(self.name, subject, Verdict.WARNING, says, do))

    def wrong(self, subject: str, says: str, do: str) -> None:
        self.findings.append(Finding(self.name, subject, Verdict.WRONG, says, do))

    def skipped(self, subject: str, says: str, do: str = "") -> None:
        self.findings.append(Finding(self.name, subject, Verdict.SKIPPED, says, do))

    def clock(self, subject: str, ahead_ms: int) -> None:
        """Judge a server's clock by how far it is ahead of ours."""
        says = f"{abs(ahead_ms) / 1000:.1f} s {'ahead of' if ahead_ms > 0 else 'behind'} this machine"
        if abs(ahead_ms) > CLOCKS_APART_MS:
            self.wrong(subject, says, "let NTP or chrony set both clocks; times decide what a rule says")
        else:
            self.ok(subject, says)


Look = Callable[[], Awaitable[list[Finding]]]


async def examine(looks: Iterable[tuple[str, Look]]) -> list[Finding]:
    """Take every look, one after the other; one that fails or hangs is a finding, and the next is taken."""
    findings: list[Finding] = []
    for area, look in looks:
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                findings += await look()
        except TimeoutError:
            says = f"no answer within {LOOK_WITHIN_S:.0f} s"
            findings.append(Finding(area, area, Verdict.WRONG, says, "look at the network between"))
        except Exception as problem:  # noqa: BLE001 - whatever it is, the other looks are worth taking
            says = f"the look failed: {type(problem).__name__}"
            findings.append(Finding(area, area, Verdict.WRONG, says, "report it: doctor should have known"))
    return findings
