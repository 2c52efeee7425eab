"""What a feed does with records before it sends them: whose they are, and what is not sent and why, counted."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from streams.vaultlogs.messages import UNPLACED
from streams.vaultlogs.objects import place
from streams.vaultlogs.operations import classify
from streams.vaultlogs.rejection import Reason, VaultRecordRejected
from streams.vaultlogs.shapes import read

SAID_OF_ONE_REASON: Final = 100
"""Refusals of one reason that are logged one by one; the count goes on."""
_log = structlog.get_logger(__name__)


def key_of(original: dict[str, Any]) -> bytes | None:
    """Return the key under which all copies of the record meet (files.file_key), None for another resource's record.

    An Event Hub or a workspace often holds the logs of all kinds of resources. Only what says so itself is left out:
    what cannot be read is sent on, for the vault agent to quarantine with its reason.
    """
    try:
        fields = read(original)
        where = place(fields, classify(fields.operation or "")[0])
        return UNPLACED if where.vault is None else f"{where.vault}/{where.name or ''}".encode()
    except VaultRecordRejected as refusal:
        return None if refusal.reason is Reason.OTHER_RESOURCE else UNPLACED
    except UnicodeEncodeError:
        return UNPLACED


@dataclass(slots=True)
class Tally:
    """What a feed did since it started."""

    feed: str
    published: int = 0
    other_resources: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def refuse(self, place_of: str, reason: str, *, digest: str | None = None) -> None:
        """Count what was not sent, and log its place and reason, never its content."""
        self.refused[reason] += 1
        if self.refused[reason] <= SAID_OF_ONE_REASON:
            _log.warning("refused", feed=self.feed, place=place_of, reason=reason, sha256=digest)

    def say(self) -> None:
        """Log the counts."""
        _log.info(
            "fed",
            feed=self.feed,
            published=self.published,
            other_resources=self.other_resources,
            refused=dict(self.refused),
        )
