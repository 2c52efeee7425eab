"""Batches that are not applied: kept as rejected, reported under their finding's name, counted, and remembered.

A repeat is only counted: whoever resends does no harm, and whoever replays gains nothing.
"""

from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from alerts.model import Evidence
from alerts.system import SYSTEM, system_finding
from alerts.thresholds import MINUTE_MS, Limits
from cryptocore.batch import Seal, SealedBatch
from cryptocore.errors import BatchRejected
from cryptocore.registry import Registry
from streams import rejected
from streams.findings import FindingBook
from streams.messages import Effects, Message
from streams.state import State

MAX_REFUSED: Final = 256
"""Offsets remembered of batches that were opened and not applied. An older one that is written to the index again
offers documents whose ids are there already."""

Reason = tuple[str, str, str]
"""Finding, field and problem; empty texts for a repeat."""

_REPEAT: Final = ("", "", "")
_WHAT: Final = {
    "deployment_mismatch": "a batch of another deployment",
    "signer_unknown": "a batch of a signer that is not registered for events",
    "seal_invalid": "a batch whose seal does not hold",
    "source_mismatch": "a batch that speaks for another service than its signer's",
    "chain_fork": "a second, different batch for a place in a chain",
}


class Meter(Struct, omit_defaults=True):
    """Counts of one partition since its state began.

    `refused` maps offsets of opened batches that were not applied to the reason; `minute` and `in_minute` measure the
    rate of rejected messages; `reached_ms` is the append time that the sources agent was told of.
    """

    batches: int = 0
    events: int = 0
    control: int = 0
    duplicates: int = 0
    stale: int = 0
    late: int = 0
    lost: int = 0
    repeats: int = 0
    rejected: dict[str, int] = {}
    minute: int = 0
    in_minute: int = 0
    reached_ms: int = 0
    refused: dict[int, Reason] = {}


@dataclass(slots=True)
class Turn:
    """One message at a step: what comes in, and where what it changes goes."""

    message: Message
    now_ms: int
    state: State
    effects: Effects
    meter: Meter


class Refusals:
    """Refuses batches of one partition."""

    def __init__(self, registry: Registry, limits: Limits, book: FindingBook) -> None:
        self._registry = registry
        self._limits = limits
        self._book = book

    def reject(self, turn: Turn, err: BatchRejected) -> None:
        """Keep the message, report it under the name of its finding, and mind the rate of such messages."""
        message, meter = turn.message, turn.meter
        rejected.reject(message, err.finding, err.field, err.problem, turn.now_ms, turn.effects)
        meter.rejected = dict(sorted({**meter.rejected, err.finding: meter.rejected.get(err.finding, 0) + 1}.items()))
        if err.finding in SYSTEM:
            self._report(turn, err)
        minute = turn.now_ms // MINUTE_MS
        meter.minute, meter.in_minute = minute, meter.in_minute + 1 if minute == meter.minute else 1
        if meter.in_minute > self._limits.rejected_per_minute:
            self._report_rate(turn, err)

    def reject_opened(self, turn: Turn, err: BatchRejected) -> None:
        """Reject a batch whose lines could be read: its offset is remembered."""
        _remember(turn, (err.finding, err.field, err.problem))
        self.reject(turn, err)

    def repeat(self, turn: Turn) -> None:
        """Drop a batch that was applied before."""
        _remember(turn, _REPEAT)

    def _report(self, turn: Turn, err: BatchRejected) -> None:
        message = turn.message
        signer, source, instance = self._claimed(message)
        finding = system_finding(
            err.finding,
            summary=f"{_WHAT.get(err.finding, 'a batch')} came in on {message.topic}/{message.partition}: "
            f"{err.field} {err.problem}",
            effective_ms=message.append_ms,
            key=instance if err.finding == "chain_fork" else "",
            principal=source,
            who=f"signer {signer}" + (f" of {source}" if source else ""),
            evidence=(Evidence("rejected", rejected.document_id(message), message.append_ms),),
            facts={"signer": signer, "instance": instance, "field": err.field},
        )
        self._book.report(finding, turn.now_ms, turn.state, turn.effects)

    def _report_rate(self, turn: Turn, err: BatchRejected) -> None:
        message, most = turn.message, self._limits.rejected_per_minute
        finding = system_finding(
            "rejected_rate",
            summary=f"more than {most} messages of {message.topic}/{message.partition} were rejected in a minute",
            effective_ms=message.append_ms,
            key=f"{message.topic}/{message.partition}",
            evidence=(Evidence("rejected", rejected.document_id(message), message.append_ms),),
            facts={"last": err.finding},
        )
        self._book.report(finding, turn.now_ms, turn.state, turn.effects)

    def _claimed(self, message: Message) -> tuple[str, str, str]:
        """Whom the seal names, true or not: the signer, its source where it is registered, the instance.

        Sources are few; an unknown signer has none, so that one who invents signers opens one finding and not many.
        """
        try:
            seal = Seal.decode(SealedBatch.from_headers(message.value, message.headers).seal)
        except BatchRejected:
            return "unknown", "", ""
        signer = self._registry.get(seal.signer_id)
        return seal.signer_id.hex(), signer.source if signer else "", seal.instance.hex()


def _remember(turn: Turn, reason: Reason) -> None:
    refused = turn.meter.refused
    turn.meter.refused = dict([*refused.items(), (turn.message.offset, reason)][-MAX_REFUSED:])
