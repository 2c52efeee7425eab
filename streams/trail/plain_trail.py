"""The hot path: plain uses of known keys, a few look-ups away from their documents and their keys' histories.

It does what the trail and `event_document` do with the same line, for the uses of which nothing else can follow: the
key and its version are known, its revision is the one expected, nobody revoked it, the sender's clock is believed. All
other lines are the caller's. That both ways come to the same is tested over any lines.
"""

from binascii import unhexlify
from bisect import insort
from collections.abc import Iterator
from struct import Struct as Layout
from typing import Final, cast

from msgspec import Struct

from alerts import rules
from alerts.thresholds import Limits
from cryptocore.events import AuditEvent, Operation, Outcome, decode_line
from cryptocore.lines.plain_uses import PlainUse, ReadLine
from streams.index.documents import DAY_MS, FUTURE_MS, PAST_MS, BatchFragment, event_head
from streams.index.port import DocKind, Document
from streams.state import Kind
from streams.trail.key_case import Batch
from streams.trail.key_history import COUNTED, PACKED_ACT, PACKED_KEY, PACKED_WHO, KeyHistory, pack_use

_SUCCEEDED: Final = Outcome.SUCCEEDED
_EVENT: Final = DocKind.EVENT
_BEGIN: Final = b'{"@timestamp":"'
_ID: Final = b'","event":{"id":"'
_TRACE: Final = b',"trace":{"id":"%b"}'
_END: Final = b"}}"

_pack_ms = Layout(">Q").pack


class _Act(Struct, gc=False):
    """What uses of one operation share: how they are counted and packed, and the document from id to actor."""

    counted: str
    packed: bytes
    document: bytes


class _Subject(Struct, gc=False):
    """What uses of one key version by one owner share: the document around the key id, and the rest."""

    version: int
    revision: int
    packed: bytes
    owner: bytes
    key: bytes


class _Caller(Struct, gc=False):
    """What uses by one actor at one place share: the document before and after the trace id."""

    packed: bytes
    who: bytes
    use: bytes


_acts: dict[tuple[str, Operation], _Act] = {}


def take_plain(  # noqa: C901, PLR0911, PLR0912 - see below
    lines: Iterator[tuple[ReadLine, bytes]], batch: Batch, fragment: BatchFragment, limits: Limits
) -> tuple[ReadLine, bytes] | None:
    """Take plain uses until a line must go the long way; return that line, or None when there is none left.

    The hot path, and one function because a call costs as much as most of its lines: nine of ten lines of a fleet are
    held against their key's history, remembered and made a document in here.

    1. Where nothing can be taken this way.
    2. The time is believed, for the trail and for the document's day.
    3. What the line's parts stand for.
    4. The key, its version and its tenant are known, and the use is what was expected.
    5. From here on things change: the count, the last uses, the document.
    """
    # 1
    earliest_ms, latest_ms, append_ms = batch.earliest_ms, batch.latest_ms, batch.append_ms
    kept_days = append_ms - PAST_MS <= earliest_ms and latest_ms < append_ms + FUTURE_MS
    if batch.suspect or not kept_days or not rules.is_ordinary(_SUCCEEDED, None):
        return next(lines, None)
    service, decoys = batch.source.encode(), {key_id.encode() for key_id in limits.decoy_keys}
    acts = {operation: _acts.get((batch.source, operation)) for operation in (Operation.ENCRYPT, Operation.DECRYPT)}
    records = batch.state.records(Kind.KEY)
    live, changed = cast("dict[bytes, KeyHistory]", records.live), records.changed
    documents, shared, most = batch.effects.documents, fragment.body, limits.recent_uses
    day_ms = earliest_ms - earliest_ms % DAY_MS
    midnight_ms = day_ms + DAY_MS
    join = b"".join
    for use, raw in lines:
        if type(use) is not PlainUse:
            return use, raw
        # 2
        occurred_ms = use.occurred_ms
        if not earliest_ms <= occurred_ms <= latest_ms:
            return use, raw
        # 3
        operation = use.operation
        act, subject, caller = acts[operation], use.subject.meaning, use.caller.meaning
        if act is None or subject is None or caller is None:
            act, subject, caller = _learn(use, raw)
            acts[operation] = act
        # 4
        ident = unhexlify(use.key_id)
        history = live.get(ident) or records.get(ident, KeyHistory)
        if history is None or not history.tenant:
            return use, raw
        number = subject.version
        for version in history.versions:
            if version.version == number:
                break
        else:
            return use, raw
        if version.revoked_ms is not None or (decoys and use.key_id in decoys):
            return use, raw
        revision = subject.revision
        if version.revision != revision and (version.revision or version.used < revision):
            return use, raw
        # 5
        try:
            history.counts[act.counted] += 1
        except KeyError:
            history.count(operation, _SUCCEEDED)
        packed = join((
            _pack_ms(occurred_ms), unhexlify(use.id.replace(b"-", b"")),
            act.packed, subject.packed, caller.packed, service,
        ))  # fmt: skip
        uses = history.uses
        if occurred_ms > history.last_ms:  # later than all of them
            history.last_ms = occurred_ms
            uses.append(packed)
        else:
            insort(uses, packed)
        if len(uses) > most:
            del uses[0]
        changed[ident] = None
        trace = use.trace_id
        body = join((
            _BEGIN, use.occurred_at, _ID, use.id, act.document,
            caller.who, _TRACE % trace if trace else b"", caller.use,
            subject.owner, use.key_id, subject.key, shared, raw, _END,
        ))  # fmt: skip
        day = day_ms if occurred_ms < midnight_ms else midnight_ms
        documents.append(Document(_EVENT, use.id.decode(), body, day))
    return None


def _learn(use: PlainUse, raw: bytes) -> tuple[_Act, _Subject, _Caller]:
    """Cut the document and the packed use of one line into what its parts stand for, and remember that."""
    event = cast("AuditEvent", decode_line(raw))
    key = event.key
    assert key is not None, "plain uses have a key"
    packed = pack_use(event, _SUCCEEDED, 0)
    act, who, use_part, owner, tail = _cut(event_head(event, event.occurred_at), event)
    learnt_act = _acts[event.service, event.operation] = _Act(
        COUNTED[event.operation, _SUCCEEDED], packed[PACKED_ACT], act
    )
    subject = _Subject(key.version or 0, key.revision or 0, packed[PACKED_KEY], owner, tail)
    caller = _Caller(packed[PACKED_WHO][: -len(event.service)], who, use_part)
    use.subject.meaning, use.caller.meaning = subject, caller
    return learnt_act, subject, caller


def _cut(head: bytes, event: AuditEvent) -> tuple[bytes, ...]:
    """Cut what a document begins with: after the id, before the actor, the trace, the owner, and around the key id.

    Each mark is found where it is meant: inside a text its quotes would be escaped.
    """
    rest = head[len(_BEGIN + event.occurred_at.encode() + _ID + event.id.encode()) :]
    act, mark, rest = rest.partition(b',"user":')
    who, middle, rest = rest.partition(b',"keytrail":')
    owner_at = rest.index(b',"secret_name":' if event.owner and event.owner.secret_name else b',"tenant_id":')
    use, rest = middle + rest[:owner_at], rest[owner_at:]
    owner, key_mark, rest = rest.partition(b'"key":{"id":"')
    return act, mark + who.partition(b',"trace":')[0], use, owner + key_mark, rest[32:]
