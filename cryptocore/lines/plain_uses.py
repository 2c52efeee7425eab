"""Plain uses: the lines that a fleet writes all day, read without reading JSON.

A plain use is a single `encrypt` or `decrypt` that succeeded, with its key and its owner, in the form in which
events.py writes it. Such a line is seven parts, and each is either of a fixed form or one that was seen before:

    head | id | act | time | service | key id | subject | "actor" | caller [| trace id]

`subject` is the rest of the key and its owner, `caller` the actor, purpose, host and address. The first line with a new
subject or caller is read by events.py; when it is a plain use and written as events.py writes it, both parts are
remembered. A line made of remembered parts is then what events.py would write of the values in them, so it holds no
repeated member and no field of a wrong form; and no rule of rules.py ties a subject to a caller. Every other
line, and every batch in which anything is wrong, is read by events.py, which also says what is wrong.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from struct import Struct as Layout
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from cryptocore.clock import parse_rfc3339
from cryptocore.errors import EventInvalid
from cryptocore.events import AuditEvent, Line, Operation, Outcome, Phase, as_written, decode_line, decode_lines
from cryptocore.lines.texts import TRACE_ID, dates, is_time_of_day

MAX_REMEMBERED: Final = 32_768
"""Subjects, and callers, that are remembered: some 10 MiB of each."""

_HEAD: Final = b'{"v":1,"type":"key","id":"'
_ACT: Final = '","phase":"single","operation":"%s","outcome":"succeeded","occurred_at":"'
_ACTS: Final = {(_ACT % act.value).encode(): act for act in (Operation.ENCRYPT, Operation.DECRYPT)}
_ACT_SIZE: Final = len(next(iter(_ACTS)))  # both words have seven letters
_SERVICE: Final = b'","service":"%b","key":{"id":"'
_KEY: Final = '{"id":"' + 32 * "0"  # what comes before the subject in a key that is written by itself
_ACTOR: Final = b',"actor":"'
_TRACE: Final = b',"trace_id":"'

_HEX: Final = b"0123456789abcdef"
_DIGITS: Final = b"0123456789"
_SECOND: Final = len("2026-11-16T02:41:07")

_encode = msgspec.json.Encoder().encode
_is_last_trace = re.compile(f'{TRACE_ID}"}}'.encode()).fullmatch


class Part(Struct, gc=False):
    """A subject or a caller, as written: what was learnt when it came first, for all lines that have it.

    `meaning` is for the one who reads the lines of this process, to keep what follows from the text alone.
    """

    text: bytes
    meaning: Any = None


class PlainUse(Struct, gc=False):
    """One plain use, cut into its parts; `decode_line` makes an AuditEvent of its line.

    `key_id` is in hex and `id` has its dashes, both as written.
    """

    operation: Operation
    id: bytes
    occurred_at: bytes
    occurred_ms: int
    key_id: bytes
    subject: Part
    caller: Part
    trace_id: bytes = b""


ReadLine: TypeAlias = Line | PlainUse


class _Cut(NamedTuple):
    """Where a plain use of one service is cut."""

    size: int
    layout: Layout
    service: bytes


class _Seconds(dict[bytes, int]):
    """Milliseconds at the start of a second, by its text; the events of a batch share their seconds."""

    def __missing__(self, second: bytes) -> int:
        text = f"{second.decode('ascii')}.000000Z"
        if not dates[text[:10]] or not is_time_of_day(text, 10):
            raise EventInvalid("occurred_at", "not a UTC time with six digits and Z")
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        self[second] = start_ms = parse_rfc3339(text) // 1000
        return start_ms


_seconds = _Seconds()
_milliseconds: Final = {b"%03d" % number: number for number in range(1000)}
_subjects: dict[bytes, Part] = {}
_callers: dict[bytes, Part] = {}


def read_lines(pieces: Sequence[bytes], service: str) -> list[ReadLine]:
    """Read the lines of a batch like `decode_lines`, and plain uses of this service as such.

    Args:
        pieces: the batch, split at its newlines; the last piece is empty.
        service: the source that the batch comes from.

    Raises:
        EventInvalid: names the line, counted from 1, and the field.
    """
    *raw_lines, last = pieces
    if not last:
        try:
            lines, uses = _read(raw_lines, _cut_of(service))
        except (EventInvalid, LookupError, UnicodeDecodeError):  # something is wrong; what, and where, is said below
            lines, uses = [], []
        if lines and _are_well_formed(uses):
            return lines
    return [*decode_lines(b"\n".join(pieces))[0]]


def _read(raw_lines: Sequence[bytes], cut: _Cut) -> tuple[list[ReadLine], list[PlainUse]]:
    """Cut what can be a plain use and decode the rest; digits, dashes and ids of uses are yet to be looked at.

    The hot path: one function, because a call costs as much as most of its lines.
    """
    size, layout, service = cut
    unpack, acts, seconds, milliseconds = layout.unpack_from, _ACTS, _seconds, _milliseconds
    subjects, callers = _subjects, _callers
    lines: list[ReadLine] = []
    uses: list[PlainUse] = []
    for raw in raw_lines:
        if len(raw) > size:
            head, ident, act, time, told_by, key_id = unpack(raw)
            operation = acts.get(act)
            if operation is not None and told_by == service and head == _HEAD:
                subject_text, _, caller_text = raw[size:].partition(_ACTOR)
                subject, caller, trace_id = subjects.get(subject_text), callers.get(caller_text), b""
                if caller is None:
                    caller_text, trace_id = _without_trace(caller_text)
                    caller = callers.get(caller_text)
                if subject is not None and caller is not None:
                    occurred_ms = seconds[time[:_SECOND]] + milliseconds[time[20:23]]
                    use = PlainUse(operation, ident, time, occurred_ms, key_id, subject, caller, trace_id)
                    uses.append(use)
                    lines.append(use)
                    continue
                lines.append(_learn(raw, subject_text, caller_text))
                continue
        lines.append(decode_line(raw))
    return lines, uses


def _are_well_formed(uses: Sequence[PlainUse]) -> bool:
    """Look at the ids and times of all uses at once.

    What is left when the digits are taken out says how many there were, and the places of the rest where they were.
    Seconds are known to be right.
    """
    count = len(uses)
    ids = b"".join([use.id for use in uses])
    times = b"".join([use.occurred_at for use in uses])
    keys = b"".join([use.key_id for use in uses])
    dashes = b"-" * count
    return (
        ids.translate(None, _HEX) == 4 * dashes
        and ids[8::36] == ids[13::36] == ids[18::36] == ids[23::36] == dashes
        and not keys.translate(None, _HEX)
        and times.translate(None, _DIGITS) == b"--T::.Z" * count
        and times[19::27] == b"." * count
        and times[26::27] == b"Z" * count
    )


def _without_trace(caller: bytes) -> tuple[bytes, bytes]:
    """Take the trace id off: it differs from call to call, and is the last member."""
    rest, _, trace = caller.partition(_TRACE)
    return (rest + b"}", trace[:-2]) if _is_last_trace(trace) else (caller, b"")


def _learn(raw: bytes, subject: bytes, caller: bytes) -> Line:
    """Read a line whose subject or caller is new, and remember both when the line is a plain use."""
    line = decode_line(raw)
    if isinstance(line, AuditEvent) and _is_plain(line) and as_written(line) == raw:
        key, owner = _encode(line.key), _encode(line.owner)
        if subject == key[len(_KEY) :] + b',"owner":' + owner:
            _remember(_subjects, subject)
            _remember(_callers, caller)
    return line


def _is_plain(event: AuditEvent) -> bool:
    return (
        event.phase is Phase.SINGLE
        and event.operation in (Operation.ENCRYPT, Operation.DECRYPT)
        and event.outcome is Outcome.SUCCEEDED
        and event.key is not None
        and event.owner is not None
        and not event.outage_grace
    )


def _remember(known: dict[bytes, Part], text: bytes) -> None:
    if text in known:
        return
    if len(known) >= MAX_REMEMBERED:
        known.clear()
    known[text] = Part(text)


@lru_cache(maxsize=1024)
def _cut_of(service: str) -> _Cut:
    text = _SERVICE % service.encode()
    layout = Layout(f"{len(_HEAD)}s36s{_ACT_SIZE}s27s{len(text)}s32s")
    return _Cut(layout.size, layout, text)
