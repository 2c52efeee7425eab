"""One call to a vault, as the month is made of them, and the names of those who call."""

import random
import uuid
from dataclasses import dataclass
from typing import Any

from streams.demo.identities import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One call. `principal` "" is a sign-in challenge; `correlation` "" lets the vault draw an id of its own.

    `spared` acts are the only trace of something that has to be told: the feed may delay or double, not lose them.
    """

    at_us: int
    principal: str
    vault: str
    operation: str
    name: str = ""
    version: str = ""
    status: int = 200
    address: str = "20.50.1.7"
    correlation: str = ""
    description: str = ""
    change: dict[str, Any] | None = None
    spared: bool = False


def oid(principal: str) -> str:
    """The object id that stands for a name of the simulation."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{principal}.keytrail.test"))


def identity(principal: str, address: str) -> Identity:
    """A caller as the vault logs it: people have a UPN."""
    person = principal.startswith("person") or principal == "contractor"
    upn = f"{principal}@example.test" if person else None
    return Identity(principal, oid(principal), oid(f"app of {principal}"), address, frozenset(), upn)


def draw_uuid(draw: random.Random) -> str:
    """A random UUID of the simulation's own."""
    return str(uuid.UUID(int=draw.getrandbits(128), version=4))


def us(seconds: float) -> int:
    """Seconds from the start of the month in microseconds."""
    return int(seconds * 1_000_000)
