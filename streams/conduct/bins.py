"""Five minutes of one principal, added up so that the order in which records came cannot show.

Every number is a sum, a minimum or a maximum. Where a bin is full, the keys that sort first stay: the same ones in any
order, with exact counts.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct

from alerts.model import AccessClass, AccessOutcome, Evidence, PrincipalKind, Severity
from alerts.thresholds import Limits
from streams.conduct.observations import Seen

CITED: Final = 8
"""Documents that one sign names at most."""
MAX_NETWORKS: Final = 32
MAX_ADDRESSES: Final = 256
"""Kept per bin; an address beyond is not told that its challenges were answered."""
_RANKS: Final = tuple(Severity)


class Cell(Struct, array_like=True):
    """Successful accesses of one class to one object: how many, and the first of them."""

    count: int
    first_us: int
    first_id: str
    operation: str
    told: int = -1


class Door(Struct, array_like=True):
    """Refused or missing: one object, how often, and the first time."""

    count: int
    first_us: int
    first_id: str
    denials: list[str] = []


class Bin(Struct, kw_only=True, omit_defaults=True):
    """One principal, five minutes. `pairs` by `vault/kind/name/class`; doors and missing names by `vault/kind/name`.

    `start_s` is the bin's beginning, `due_ms` when it is judged, and after that when it is forgotten.
    """

    start_s: int
    due_ms: int
    judged: bool = False
    kind: PrincipalKind = PrincipalKind.UNKNOWN
    label: str | None = None
    labelled: tuple[int, str] = (0, "")
    address: str | None = None
    addressed: tuple[int, str] | None = None
    succeeded: int = 0
    pairs: dict[str, Cell] = {}
    refused: dict[str, Door] = {}
    missing: dict[str, Door] = {}
    networks: list[str] = []
    learned_networks: list[str] = []
    addresses: list[str] = []


def add(bin_: Bin, seen: Seen, limits: Limits) -> None:
    """Count one access."""
    at = (seen.time_us, seen.access_id)
    if at > bin_.labelled:
        bin_.labelled, bin_.kind, bin_.label = at, seen.kind, seen.label
    if seen.address is not None:
        _keep(bin_.addresses, seen.address, MAX_ADDRESSES)
        if bin_.addressed is None or at < bin_.addressed:
            bin_.addressed, bin_.address = at, seen.address
    if seen.network is not None:
        _keep(bin_.networks, seen.network, MAX_NETWORKS)
        if seen.outcome is AccessOutcome.SUCCEEDED:
            _keep(bin_.learned_networks, seen.network, MAX_NETWORKS)
    place = f"{seen.vault}/{seen.object_kind}/{seen.object_name}"
    if seen.outcome is AccessOutcome.SUCCEEDED:
        bin_.succeeded += 1
        _count(bin_.pairs, f"{place}/{seen.access_class}", seen, limits.bin_pairs)
    elif not seen.object_name:
        return
    elif seen.outcome is AccessOutcome.DENIED and seen.denial != "unauthenticated":
        _knock(bin_.refused, place, seen, limits.bin_refusals)
    elif seen.outcome is AccessOutcome.NOT_FOUND:
        _knock(bin_.missing, place, seen, limits.bin_refusals)


def split(pair: str) -> tuple[str, str, str, AccessClass]:
    """Take a pair's key apart: vault, object kind, name, class."""
    place, _, access_class = pair.rpartition("/")
    vault, kind, name = place.split("/", 2)
    return vault, kind, name, AccessClass(access_class)


def vault_of(place: str) -> str:
    """The vault of a pair or an object."""
    return place[: place.index("/")]


def objects(*bins: Bin | None) -> dict[str, Cell]:
    """Objects with a name that were touched with success in any of the bins, each with its first cell."""
    found: dict[str, Cell] = {}
    for one in bins:
        for pair, cell in () if one is None else one.pairs.items():
            place = pair[: pair.rindex("/")]
            known = found.get(place)
            if place[-1] != "/" and (known is None or _first(cell) < _first(known)):
                found[place] = cell
    return found


def doors(*kept: dict[str, Door]) -> dict[str, Door]:
    """Add up doors of several bins."""
    found: dict[str, Door] = {}
    for places in kept:
        for place, door in places.items():
            known = found.get(place)
            if known is None:
                found[place] = Door(door.count, door.first_us, door.first_id, list(door.denials))
                continue
            known.count += door.count
            known.first_us, known.first_id = min(_first(known), _first(door))
            known.denials = sorted({*known.denials, *door.denials})
    return found


def evidence(cells: Iterable[Cell | Door]) -> tuple[Evidence, ...]:
    """Name the first documents of the cells, oldest first."""
    return tuple(
        Evidence("vault-access", cell.first_id, cell.first_us // 1000) for cell in sorted(cells, key=_first)[:CITED]
    )


def _first(cell: Cell | Door) -> tuple[int, str]:
    return cell.first_us, cell.first_id


def _count(pairs: dict[str, Cell], key: str, seen: Seen, most: int) -> None:
    told = -1 if seen.told is None else _RANKS.index(seen.told)
    cell = pairs.get(key)
    if cell is None:
        if _has_room(pairs, key, most):
            pairs[key] = Cell(1, seen.time_us, seen.access_id, seen.operation, told)
        return
    cell.count += 1
    cell.told = max(cell.told, told)
    if (seen.time_us, seen.access_id) < _first(cell):
        cell.first_us, cell.first_id, cell.operation = seen.time_us, seen.access_id, seen.operation


def _knock(kept: dict[str, Door], place: str, seen: Seen, most: int) -> None:
    door = kept.get(place)
    if door is None:
        if not _has_room(kept, place, most):
            return
        door = kept[place] = Door(0, seen.time_us, seen.access_id)
    door.count += 1
    if (seen.time_us, seen.access_id) < _first(door):
        door.first_us, door.first_id = seen.time_us, seen.access_id
    if seen.denial is not None and seen.denial not in door.denials:
        door.denials = sorted({*door.denials, seen.denial})


def _has_room(kept: dict[str, Any], key: str, most: int) -> bool:
    """Make room by letting the key go that sorts last; it never comes back, since later ones must sort before it."""
    if len(kept) < most:
        return True
    last = max(kept)
    if key > last:
        return False
    del kept[last]
    return True


def _keep(kept: list[str], value: str, most: int) -> None:
    """Add to a sorted short list."""
    at = bisect_left(kept, value)
    if at == len(kept) or kept[at] != value:
        kept.insert(at, value)
        del kept[most:]
