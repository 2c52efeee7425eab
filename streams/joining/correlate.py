"""Messages of the `correlate` topic (key `vault/name`): claims of services, uses seen by the vault, progress.

docs/formats.md, section "Vault attempts and the join". `use` carries, beyond what matching needs, whom and where the
vault's record names, so that a finding can say it without a look-up.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from alerts.model import VaultAccess
from cryptocore.events import KeyRef, OwnerRef, VaultAttempt


class Claim(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="claim"):
    """A service's word that it called the vault: an intent (by its call ids) or the outcome that replaces it.

    `operation` is that of the event: wrap, unwrap, or an act of the life cycle of the KEK itself.
    """

    v: Literal[1]
    event_id: str
    intent_id: str | None = None
    phase: str
    source: str
    instance: str
    vault: str
    name: str
    version: str | None = None
    operation: str
    outcome: str | None = None
    reason: str | None = None
    call_ids: tuple[str, ...] = ()
    attempts: tuple[VaultAttempt, ...] = ()
    effective_ms: int
    append_ms: int
    key: KeyRef | None = None
    owner: OwnerRef | None = None
    actor: str
    purpose: str
    suspect: bool = False


class Use(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="use"):
    """One operation on a key that the vault logged: of class use, or of class admin, and then `act` is its record.

    Event Grid's news of a key comes in the same way, with its record and without a caller. Challenges never come here.
    """

    v: Literal[1]
    access_id: str
    vault: str
    name: str
    version: str | None = None
    operation: str
    outcome: str
    principal_id: str | None = None
    principal_kind: str | None = None
    principal_label: str | None = None
    address: str | None = None
    correlation_id: str | None = None
    time_us: int
    append_ms: int
    act: VaultAccess | None = None


class Progress(Struct, frozen=True, kw_only=True, tag_field="type", tag="progress"):
    """All that this instance committed before `passed_ms` has been received: no claim from before it is still to come.

    Sent to every partition, and only after every head that the heartbeat names has been received.
    """

    v: Literal[1]
    source: str
    instance: str
    passed_ms: int
    state: Literal["live", "closed", "silent"]


Correlated = Claim | Use | Progress

encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Correlated] = msgspec.json.Decoder(Correlated)


def decode(value: bytes) -> Correlated:
    """Read one message of the topic.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: it was not written by a worker of ours.
    """
    return _decoder.decode(value)


def partition_key(vault: str, name: str) -> bytes:
    """Key of the topic and of the KEK's state: both lower case."""
    return f"{vault}/{name}".lower().encode()
