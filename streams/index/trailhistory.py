"""What the monitor's index knows of a key's life: what records are compared with before they are signed anew."""

from hashlib import sha256
from typing import Any, Final

import msgspec

from cryptocore.clock import parse_rfc3339
from cryptocore.errors import EventInvalid
from cryptocore.events import as_written, decode_line
from cryptocore.keys import KeyState
from cryptocore.life.resign import Told
from cryptocore.lines.values import AuditEvent
from cryptocore.lines.vocabulary import LIFE_CYCLE, TOKEN_ACTS
from cryptocore.registry import Registry, Role
from streams.index.port import DocKind, EventIndex

_KEY_ACTS: Final = LIFE_CYCLE - TOKEN_ACTS


class IndexTrail:
    """Reads an index; it knows what was indexed and is still kept, and of a key's last minutes perhaps nothing yet.

    Args:
        registry: says which services may change keys; what another one told of them does not count.
    """

    def __init__(self, index: EventIndex, registry: Registry) -> None:
        self._index = index
        self._services = frozenset(one.source for one in registry.signers if Role.KEYS in one.roles)

    async def newest(self, key_id: str, number: int) -> Told | None:
        """Tell the act with the highest revision of a key version; None: the index has none.

        Raises:
            IndexUnavailable: the index does not answer.
        """
        where: dict[str, str | int | bool] = {"keytrail.key.id": key_id, "keytrail.key.version": number}
        found: Told | None = None
        for document in await self._index.find(DocKind.EVENT, where=where):
            told = self._told(document)
            if told is not None and (found is None or told.revision > found.revision):
                found = told
        return found

    def _told(self, document: dict[str, Any]) -> Told | None:
        said = document["keytrail"]
        revision = said["key"].get("revision")
        acted = document["event"]["action"] in _KEY_ACTS and said.get("outcome") == "succeeded"
        if not acted or not revision or document["service"]["name"] not in self._services:
            return None
        state = said["key"].get("state")
        return Told(
            revision=revision,
            state=None if state is None else KeyState(state),
            digest=_digest(said.get("line")),
            told_ms=parse_rfc3339(said["appended_at"]) // 1000,
            suspect=bool(said.get("suspect")),
        )


def _digest(line: Any) -> bytes | None:
    """Digest the line as a service of ours wrote it; another hand's spelling cannot be had back from JSON."""
    try:
        event = decode_line(msgspec.json.encode(line))
    except (EventInvalid, TypeError):
        return None
    return sha256(as_written(event)).digest() if isinstance(event, AuditEvent) else None
