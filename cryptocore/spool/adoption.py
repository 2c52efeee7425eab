"""Spools whose process is gone: check what it left, say so in its own chain, and finish that chain.

The adopter seals with its own signer in the chain of the process that is gone; both speak for the same source.
"""

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptocore.clock import rfc3339
from cryptocore.errors import EventInvalid
from cryptocore.events import AuditEvent, ChainClose, ChainOpen, decode_line
from cryptocore.lines.vocabulary import Outcome, Phase, Reason
from cryptocore.signing import Signer
from cryptocore.spool.entries import Entry, control_entry, entry_of, new_id
from cryptocore.spool.file import Identity, Spool, SpoolCorrupt, SpoolUnmade
from cryptocore.spool.lock import SpoolLock

_log = logging.getLogger(__name__)
_DAMAGED: Final = ".damaged"


def adopt(path: Path, *, adopter: Identity, signer: Signer, now_us: int, ids: Callable[[int], bytes]) -> Spool | None:
    """Take over one spool file.

    1. Its lock is free: the process is gone, or never got as far as a first line.
    2. It is of the same source, deployment and topic generation as the adopter.
    3. Its rows are those committed; a damaged file is set aside, never deleted.
    4. Unless the chain was closed: a `chain.open` that names the adopter, and outcome `unknown` for every intent left
       open, are committed to it, and everything is sealed.

    The caller still owes: sending what is unsent, then `close_chain`, sending that, and removing the file.

    Returns:
        The open spool; None when there is nothing to take over.
    """
    # 1
    lock = SpoolLock.take(path)
    if lock is None:
        return None
    # 2, 3
    spool = _opened(lock, adopter, signer)
    if spool is None:
        return None
    # 4
    if not spool.closed:
        spool.commit(_opening(spool, adopter, now_us, ids), now_ms=now_us // 1000)
        spool.seal_due(now_ms=now_us // 1000, everything=True)
    return spool


def close_chain(spool: Spool, *, now_us: int, ids: Callable[[int], bytes]) -> None:
    """Write the last line of a chain, sealed; nothing, when it has one already."""
    if spool.closed:
        return
    at = rfc3339(now_us)
    identity = spool.identity
    line = ChainClose(
        id=new_id(ids),
        at=at,
        service=identity.service,
        heads=spool.heads(),
        tallies=spool.tallies(),
        oldest_unsent_at=spool.oldest_unsent_at(),
    )
    entry = control_entry(line, at, instance=identity.instance, partitions=identity.partitions)
    spool.commit([entry], now_ms=now_us // 1000, closing=True)


def _opened(lock: SpoolLock, adopter: Identity, signer: Signer) -> Spool | None:
    """Open a spool that holds something of ours to send; dispose of one that holds nothing."""
    spool: Spool | None = None
    try:
        spool = Spool(lock, signer=signer, linger_ms=0) if lock.path.exists() else None
        if spool is not None:
            spool.verify_rows()
    except SpoolUnmade:
        spool = None
    except (SpoolCorrupt, sqlite3.DatabaseError, TypeError, ValueError) as err:  # a damaged file may hold anything
        _set_aside(lock, spool, err)
        return None
    if spool is None:
        lock.remove()
        return None
    if _belonging(spool.identity) != _belonging(adopter):
        _log.warning("spool %s is of another deployment or topic generation and is left alone", lock.path.name)
        spool.close()
        return None
    if spool.empty():
        spool.close(remove=True)
        return None
    return spool


def _belonging(identity: Identity) -> tuple[str, bytes, int, int]:
    return identity.service, identity.deployment, identity.generation, identity.partitions


def _opening(spool: Spool, adopter: Identity, now_us: int, ids: Callable[[int], bytes]) -> list[Entry]:
    theirs, at = spool.identity, rfc3339(now_us)
    opened = ChainOpen(
        id=new_id(ids),
        at=at,
        service=theirs.service,
        durability=adopter.durability,
        continues=adopter.instance.hex(),
    )
    entries = [control_entry(opened, at, instance=theirs.instance, partitions=theirs.partitions)]
    for raw in spool.open_intents():
        outcome = _outcome_of(raw, theirs, at, ids)
        if outcome is not None:
            entries.append(entry_of(outcome, instance=theirs.instance, partitions=theirs.partitions))
    return entries


def _outcome_of(raw: bytes, theirs: Identity, at: str, ids: Callable[[int], bytes]) -> AuditEvent | None:
    """Answer an intent; None when its copy is damaged: the rows, which are chained, still tell of it."""
    try:
        intent = decode_line(bytes(raw).removesuffix(b"\n"))
        if isinstance(intent, AuditEvent) and intent.phase is Phase.INTENT and intent.service == theirs.service:
            return _unknown(intent, at, ids)
    except (EventInvalid, TypeError) as err:
        _log.error("spool of %s: a copy of an open intent is damaged: %s", theirs.instance.hex(), err)
        return None
    _log.error("spool of %s: a copy of an open intent is none", theirs.instance.hex())
    return None


def _unknown(intent: AuditEvent, at: str, ids: Callable[[int], bytes]) -> AuditEvent:
    return AuditEvent(
        id=new_id(ids),
        phase=Phase.OUTCOME,
        operation=intent.operation,
        outcome=Outcome.UNKNOWN,
        reason=Reason.CRASHED,
        occurred_at=at,
        service=intent.service,
        key=intent.key,
        claimed_key_id=intent.claimed_key_id,
        owner=intent.owner,
        kek=intent.kek,
        actor=intent.actor,
        purpose=intent.purpose,
        intent_id=intent.id,
        host=intent.host,
    )


def _set_aside(lock: SpoolLock, spool: Spool | None, problem: Exception) -> None:
    """Keep a damaged spool under another name, for whoever looks into it; its chain will show as unclosed."""
    _log.error("spool %s is damaged and was set aside: %s", lock.path.name, problem)
    if spool is not None:
        spool.disconnect()
    for suffix in ("", "-wal"):
        part = lock.path.with_name(lock.path.name + suffix)
        if part.exists():
            part.rename(part.with_name(part.name + _DAMAGED))
    lock.remove()
