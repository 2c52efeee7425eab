"""The values of a line: the audit event, the control lines, and what they are made of.

Building one checks it, so that a wrong event is found where it is made. events.py writes and reads them.
"""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from cryptocore.keys import KeyState
from cryptocore.lines import control_rules
from cryptocore.lines import rules as event_rules
from cryptocore.lines.texts import MAX_INTEGER, MAX_VERSION
from cryptocore.lines.vocabulary import Durability, Operation, Outcome, Phase, Reason

_Version = Annotated[int, Meta(ge=1, le=MAX_VERSION)]
_Positive = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
_Natural = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
_U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
_HttpStatus = Annotated[int, Meta(ge=100, le=599)]


class KeyRef(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """The key version an event is about; `revision` is that of its record at the time."""

    id: str
    version: _Version | None = None
    revision: _Positive | None = None
    kind: Literal["dek", "kek"] | None = None
    state: KeyState | None = None


class OwnerRef(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """Whose key it is: a tenant's integration, or a secret of our own."""

    tenant_id: str | None = None
    integration_id: str | None = None
    secret_name: str | None = None


class KekRef(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """A version of a key in a vault, all in lower case; only an act on the KEK itself may leave the version open."""

    vault: str
    name: str
    version: str | None = None


class VaultAttempt(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """One request to the vault; what is absent was not answered."""

    call_id: str
    request_id: str | None = None
    http_status: _HttpStatus | None = None
    started_at: str
    ended_at: str | None = None


class Count(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """How many acts one summary stands for."""

    operation: Operation
    outcome: Outcome
    reason: Reason
    count: _Positive


class AuditEvent(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    gc=False,
    tag_field="type",
    tag="key",
):
    """One act with a key: by whom, for what, on which key, how it ended."""

    v: Literal[1] = 1
    id: str
    phase: Phase
    operation: Operation
    outcome: Outcome | None = None
    reason: Reason | None = None
    occurred_at: str
    service: str
    key: KeyRef | None = None
    claimed_key_id: str | None = None
    owner: OwnerRef | None = None
    kek: KekRef | None = None
    token_id: str | None = None
    actor: str
    purpose: str
    intent_id: str | None = None
    call_ids: tuple[str, ...] = ()
    vault_attempts: tuple[VaultAttempt, ...] = ()
    counts: tuple[Count, ...] = ()
    recovery: bool = False
    outage_grace: bool = False
    host: str | None = None
    address: str | None = None
    trace_id: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        event_rules.check_event(self)


class ChainOpen(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    gc=False,
    tag_field="type",
    tag="chain.open",
):
    """The first line of a process, or of whoever adopts the chain of one that is gone."""

    v: Literal[1] = 1
    id: str
    at: str
    service: str
    durability: Durability
    continues: str | None = None

    def __post_init__(self) -> None:
        control_rules.check_open(self)


class Head(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """The last batch of one chain, as its sender knows it."""

    generation: _U16
    partition: _U16
    sequence: _Natural
    digest: str


class Tally(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """How many single and outcome events the process has committed since it started."""

    operation: Operation
    outcome: Outcome
    count: _Positive


class Heartbeat(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    gc=False,
    tag_field="type",
    tag="heartbeat",
):
    """A living process says where its chains are; the batch that carries this line is not yet counted."""

    v: Literal[1] = 1
    id: str
    at: str
    service: str
    heads: tuple[Head, ...]
    tallies: tuple[Tally, ...]
    oldest_unsent_at: str | None = None

    def __post_init__(self) -> None:
        control_rules.check_heads(self)


class ChainClose(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    gc=False,
    tag_field="type",
    tag="chain.close",
):
    """The last line of a process that ended in order."""

    v: Literal[1] = 1
    id: str
    at: str
    service: str
    heads: tuple[Head, ...]
    tallies: tuple[Tally, ...]
    oldest_unsent_at: str | None = None

    def __post_init__(self) -> None:
        control_rules.check_heads(self)


Line: TypeAlias = AuditEvent | ChainOpen | Heartbeat | ChainClose
