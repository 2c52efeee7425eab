"""What a control line must satisfy beyond its types; rules.py has the same for audit events."""

from typing import TYPE_CHECKING

from cryptocore.errors import EventInvalid
from cryptocore.lines.rules import check_time, check_uuid
from cryptocore.lines.texts import is_digest, is_key_id, services

if TYPE_CHECKING:
    from cryptocore.lines.values import ChainClose, ChainOpen, Heartbeat


def check_open(line: "ChainOpen") -> None:
    """Check a `chain.open`."""
    _check_control(line)
    if line.continues is not None and not is_key_id(line.continues):
        raise EventInvalid("continues", "not 32 lower-case hex digits")


def check_heads(line: "Heartbeat | ChainClose") -> None:
    """Check a heartbeat or a `chain.close`."""
    _check_control(line)
    for place, head in enumerate(line.heads):
        if not is_digest(head.digest):
            raise EventInvalid(f"heads[{place}].digest", "not 64 lower-case hex digits")
    if len({(head.generation, head.partition) for head in line.heads}) != len(line.heads):
        raise EventInvalid("heads", "one entry for each generation and partition")
    if len({(tally.operation, tally.outcome) for tally in line.tallies}) != len(line.tallies):
        raise EventInvalid("tallies", "one entry for each operation and outcome")
    if line.oldest_unsent_at is not None:
        check_time("oldest_unsent_at", line.oldest_unsent_at)


def _check_control(line: "ChainOpen | Heartbeat | ChainClose") -> None:
    check_uuid("id", line.id)
    check_time("at", line.at)
    if not services[line.service]:
        raise EventInvalid("service", "not a source name")
