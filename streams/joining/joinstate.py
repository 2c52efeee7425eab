"""What the join keeps in the state of its partition."""

from msgspec import Struct

from alerts.model import KekUse, VaultAccess
from streams.joining.correlate import Claim


class UseState(Struct, kw_only=True, omit_defaults=True):
    """One vault record as last judged; `counted` names the findings (fingerprint, finding id) it is a hit of.

    `act` is the record of an administrative act, which has other rules than a use. `disabled` names the finding that a
    wrap under a disabled KEK is a hit of. `settled`: what it was joined with is forgotten; it is not judged any more.
    """

    use: KekUse
    seen_ms: int
    judged_ms: int = 0
    revision: int = 0
    doc_indexed: int = 0
    settled: bool = False
    counted: list[tuple[str, str]] = []
    disabled: list[tuple[str, str]] = []
    act: VaultAccess | None = None


class ClaimState(Struct, kw_only=True, omit_defaults=True):
    """What a service says of one call: the outcome, or the intent until that comes; the intent's call ids stay.

    `unlogged`: its document says that the vault's log does not show it. `settled` holds call ids of attempts whose
    vault record was found and is forgotten. `tallied` is how many of its answered attempts the tally of its vault has
    as missing; None = not looked at yet.
    """

    claim: Claim
    call_ids: tuple[str, ...] = ()
    intent_ms: int | None = None
    seen_ms: int
    settled: list[str] = []
    unlogged: bool = False
    tallied: int | None = None
    revision: int = 0
    doc_indexed: int = 0
    counted: list[tuple[str, str]] = []


class InstanceState(Struct, kw_only=True, omit_defaults=True):
    """How far one process of a source is heard; `heard` is False while only claims of it have come."""

    source: str
    passed_ms: int
    state: str
    seen_ms: int
    heard: bool = False


class Retracted(Struct, kw_only=True):
    """How many hits of an open finding were explained after all."""

    finding_id: str
    retracted: int
