"""What the spool needs to know of a line beside its bytes: where it goes, how soon, and whether it may use the reserve.

Lines that differ in id and time only are written from a form: the event is encoded and checked once, then its two
places are filled. Encoding and checking each line anew costs more than the encryption it reports.
"""

from collections.abc import Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from cryptocore.events import AuditEvent, Line, encode_line
from cryptocore.lines.vocabulary import LIFE_CYCLE, Operation, Outcome, Phase
from cryptocore.partitions import partition_key, partition_of

_ID: Final = "00000000-0000-0000-0000-000000000000"
_TIME: Final = "1970-01-01T00:00:00.000000Z"


class Manner(Struct, frozen=True, gc=False):
    """How the spool treats a line.

    Attributes:
        tally: the operation and outcome it counts for; None for an intent and for control lines.
        urgent: sealed in the transaction that commits it.
        reserved: may use the part of the quota that is kept for outcomes, denials and the life cycle.
    """

    tally: tuple[Operation, Outcome] | None
    urgent: bool
    reserved: bool


CONTROL: Final = Manner(tally=None, urgent=True, reserved=True)


class Entry(Struct, frozen=True, gc=False):
    """One line on its way into the spool; `line` ends with its newline, `at` is when it happened (RFC 3339)."""

    line: bytes
    partition: int
    at: str
    manner: Manner
    opens_intent: str | None = None
    closes_intent: str | None = None


def manner_of(event: AuditEvent) -> Manner:
    """Judge by phase, operation and outcome."""
    refused = event.outcome in (Outcome.DENIED, Outcome.FAILED)
    urgent = refused or event.operation in LIFE_CYCLE
    return Manner(
        tally=None if event.outcome is None else (event.operation, event.outcome),
        urgent=urgent,
        reserved=urgent or event.phase is Phase.OUTCOME,
    )


def entry_of(event: AuditEvent, *, instance: bytes, partitions: int) -> Entry:
    """Encode one event.

    Raises:
        EventInvalid: a receiver would refuse it.
    """
    return Entry(
        encode_line(event) + b"\n",
        partition_of(partition_key(event, instance), partitions),
        event.occurred_at,
        manner_of(event),
        event.id if event.phase is Phase.INTENT else None,
        event.intent_id,
    )


def control_entry(line: Line, at: str, *, instance: bytes, partitions: int) -> Entry:
    """Encode one control line."""
    return Entry(encode_line(line) + b"\n", partition_of(instance, partitions), at, CONTROL)


def new_id(ids: Callable[[int], bytes]) -> str:
    """Draw the id of an event or a vault call: 16 bytes written as a UUID of version 4."""
    text = ids(16).hex()
    variant = "89ab"[ord(text[16]) & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


class Form:
    """A single event with its id and time left blank."""

    __slots__ = ("_head", "_manner", "_middle", "_partition", "_tail")

    def __init__(self, event: AuditEvent, *, instance: bytes, partitions: int) -> None:
        blank = encode_line(replace(event, id=_ID, occurred_at=_TIME)) + b"\n"
        self._head, rest = blank.split(_ID.encode(), 1)
        self._middle, self._tail = rest.split(_TIME.encode(), 1)
        self._partition = partition_of(partition_key(event, instance), partitions)
        self._manner = manner_of(event)

    def fill(self, event_id: str, at: str) -> Entry:
        """Write the line of one more such event; both arguments are already of the format's form."""
        line = b"%b%b%b%b%b" % (self._head, event_id.encode(), self._middle, at.encode(), self._tail)
        return Entry(line, self._partition, at, self._manner)
