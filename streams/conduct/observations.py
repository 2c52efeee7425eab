"""Messages of the `who` topic: what a principal did, one access a message, keyed by the principal.

Challenges name nobody and are keyed by their address, as are the answers that end them. People's commands about
baselines come the same way. docs/detection.md says what follows from them.
"""

import hashlib
from collections.abc import Iterable
from typing import Final, Literal

import msgspec
from msgspec import Struct, field

from alerts.model import AccessClass, AccessOutcome, Finding, PrincipalKind, Severity, VaultAccess
from streams.messages import WHO, Effects

MAX_PRINCIPAL: Final = 256
"""Characters of a principal id that become keys; Azure's have 36, resource ids up to about 200."""
JUDGED: Final = frozenset({AccessClass.USE, AccessClass.READ, AccessClass.LIST, AccessClass.ADMIN, AccessClass.UNKNOWN})
"""Classes that belong in a baseline: challenges name nobody, notifications have no caller."""


class Seen(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="seen"):
    """One vault access of somebody; `told` is the severity of what another rule said of it."""

    v: Literal[1]
    access_id: str
    principal: str
    kind: PrincipalKind
    label: str | None = None
    vault: str
    object_kind: str = ""
    object_name: str = ""
    operation: str
    access_class: AccessClass = field(name="class")
    outcome: AccessOutcome
    denial: str | None = None
    network: str | None = None
    address: str | None = None
    time_us: int
    append_ms: int
    told: Severity | None = None


class Challenged(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="challenged"):
    """The vault told an address to sign in."""

    v: Literal[1]
    access_id: str
    vault: str
    address: str
    network: str | None = None
    time_us: int
    append_ms: int


class Answered(Struct, frozen=True, kw_only=True, tag_field="type", tag="answered"):
    """An address came with somebody's token within this bin; sent when the bin is judged."""

    v: Literal[1]
    address: str
    bin: int


class Opened(Struct, frozen=True, kw_only=True, tag_field="type", tag="opened"):
    """A vault was first seen in this hour (since the epoch); goes to every partition, and the earliest counts."""

    v: Literal[1]
    vault: str
    hour: int


class BaselineCommand(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="command"):
    """What a person decided about a principal's baseline, in one vault or ("") in all; the same `id` counts once.

    accept: the level that was told is usual from now on. reset: forget, and learn again for seven days.
    """

    v: Literal[1]
    id: str
    act: Literal["accept", "reset"]
    principal: str
    vault: str = ""
    person: str
    note: str = ""


Observation = Seen | Challenged | Answered | Opened | BaselineCommand

encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Observation] = msgspec.json.Decoder(Observation)


def decode(value: bytes) -> Observation:
    """Read one message of the topic.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: neither a worker of ours nor the command line wrote it.
    """
    return _decoder.decode(value)


def principal_key(principal: str) -> str:
    """Return the id under which a principal is kept; one of absurd length by its digest."""
    lowered = principal.lower()
    if len(lowered) <= MAX_PRINCIPAL:
        return lowered
    return f"sha256:{hashlib.sha256(lowered.encode()).hexdigest()}"


def address_key(address: str) -> bytes:
    """Key of the topic for what is known of an address alone."""
    return f"address:{address}".encode()


def tell(access: VaultAccess, append_ms: int, found: Iterable[Finding], effects: Effects) -> None:
    """Send what the who agent needs of one vault access, if it needs it.

    Args:
        access: seen for the first time (copies must not come here).
        append_ms: when the log had it.
        found: what the rules of other scopes said of the same access.
        effects: where the message goes.
    """
    if access.vault is None:
        return
    if access.access_class is AccessClass.CHALLENGE:
        if access.address is not None:
            effects.send(WHO, address_key(access.address), encode(_challenged(access, access.vault, append_ms)))
        return
    if access.access_class not in JUDGED or access.principal.id is None or access.outcome is None:
        return
    principal = principal_key(access.principal.id)
    told = max((one.severity for one in found if one.rule_id != "rule_error"), key=lambda one: one.rank, default=None)
    seen = Seen(
        v=1,
        access_id=access.access_id,
        principal=principal,
        kind=access.principal.kind,
        label=access.principal.upn or access.principal.resource,
        vault=access.vault,
        object_kind=access.object_kind or "",
        object_name=access.object_name or "",
        operation=access.operation,
        access_class=access.access_class,
        outcome=access.outcome,
        denial=access.denial,
        network=access.network,
        address=access.address,
        time_us=access.time_us,
        append_ms=append_ms,
        told=told,
    )
    effects.send(WHO, principal.encode(), encode(seen))


def _challenged(access: VaultAccess, vault: str, append_ms: int) -> Challenged:
    return Challenged(
        v=1,
        access_id=access.access_id,
        vault=vault,
        address=access.address or "",
        network=access.network,
        time_us=access.time_us,
        append_ms=append_ms,
    )
