"""Records on their way to more partitions, and the rules that several topics share (migrate_records). Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from math import gcd
from typing import TypeVar

from msgspec import Struct

from streams.findings import OpenFinding
from streams.log.statelog import partition_of
from streams.state import Kind, State

R = TypeVar("R", bound=Struct)


class Move:
    """One topic's records on their way from `old` partitions to `new` ones."""

    def __init__(self, old: Sequence[State], partitions: int) -> None:
        self.old = old
        self.new = [State() for _ in range(partitions)]
        self.apart = gcd(len(old), partitions)
        self.followed: defaultdict[bytes, set[int]] = defaultdict(set)
        """Partitions of the records that are hits of a finding, by its fingerprint."""

    def home(self, key: bytes) -> int:
        """Where messages with this key go."""
        return partition_of(key, len(self.new))

    def came_by(self, key: bytes, place: int) -> bool:
        """Whether messages with this key went to this old partition."""
        return partition_of(key, len(self.old)) == place

    def spread(self, place: int) -> range:
        """Where any key of an old partition can lead: a hash modulo both counts keeps what these have in common."""
        return range(place % self.apart, len(self.new), self.apart)

    def keep(self, place: int, kind: Kind, ident: bytes, source: int) -> None:
        """Put a record as it is."""
        self.new[place].load(bytes((kind,)) + ident, self.old[source].records(kind).stored[ident])

    def merge(self, place: int, kind: Kind, ident: bytes, record: R, both: Callable[[R, R], R]) -> None:
        """Put a record, or make one of it and the one that is there."""
        there = self.new[place].get(kind, ident, type(record))
        self.new[place].put(kind, ident, record if there is None else both(there, record))


Rule = Callable[[Move, int, bytes], None]
"""Takes one record of an old partition, by its id."""


def stay(kind: Kind) -> Rule:
    """Keep each record at its partition's number."""

    def rule(move: Move, place: int, ident: bytes) -> None:
        move.keep(place, kind, ident, place)

    return rule


def by(kind: Kind, key_of: Callable[[bytes], bytes]) -> Rule:
    """Put each record where messages with its key go."""

    def rule(move: Move, place: int, ident: bytes) -> None:
        move.keep(move.home(key_of(ident)), kind, ident, place)

    return rule


def itself(ident: bytes) -> bytes:
    """The id is the key."""
    return ident


# Findings


def _later(one: OpenFinding, other: OpenFinding) -> OpenFinding:
    """Two partitions had the same finding: the one hit last goes on. The other is known to triage as a run of hits
    of the same alert, and ends there by itself.
    """  # noqa: D205 - the sentences belong together
    return max(one, other, key=lambda known: (known.hit_ms, known.finding_id))


def findings(keys_of: Callable[[OpenFinding], Iterable[bytes]]) -> Rule:
    """A finding goes with what it is about; one about nothing that has a key stays."""

    def rule(move: Move, place: int, ident: bytes) -> None:
        known = move.old[place].get(Kind.FINGERPRINT, ident, OpenFinding)
        assert known is not None
        homes = move.followed.get(ident) or {_finding_home(move, place, keys_of(known))}
        for home in homes:
            move.merge(home, Kind.FINGERPRINT, ident, known, _later)

    return rule


def _finding_home(move: Move, place: int, candidates: Iterable[bytes]) -> int:
    return next((move.home(key) for key in candidates if move.came_by(key, place)), place)
