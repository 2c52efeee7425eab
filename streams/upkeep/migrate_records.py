"""Where each state record of a topic goes when the topic gets more partitions. Pure.

A record goes where its step will look for it: by the key of the messages that touch it. Three kinds of records have no
such key. What counts a partition's own past (meters, chains of the old generation) stays at its number: with more
partitions than before every number is still there, and nothing meets another. What every partition must know
(processes heard, first hours of vaults) is merged and given to all. What was kept by a digest that does not tell the
key goes to each partition that the key can now lead to.
"""

from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from typing import Final

from msgspec import Struct

from streams.conduct import who
from streams.conduct.observations import address_key
from streams.findings import OpenFinding
from streams.joining.correlate import partition_key
from streams.joining.joinstate import ClaimState, InstanceState, Retracted, UseState
from streams.messages import CORRELATE, KEY_EVENTS, VAULT_ACCESS, WHO
from streams.state import Kind, State
from streams.trail import keys
from streams.trail.refusals import Meter
from streams.upkeep.migrate_move import Move, Rule, by, findings, itself, stay
from streams.vaultlogs import twins

_BIN_SUFFIX: Final = 6
"""Bytes of a bin's id behind the principal (who)."""
_WITHOUT_KEY: Final = b"without key/"
_WATCH: Final = b"watch"


class _Watch(Struct, array_like=True):
    """Keys that the keys agent watches by the clock, by id in hex; held against its own by a test."""

    due: dict[str, int] = {}


class NoRule(Exception):
    """A kind of records that nobody has said a rule for; the text names it."""


def repartition(topic: str, old: Sequence[State], partitions: int) -> list[State]:
    """Return the states of the new partitions; those given are left as they are.

    Raises:
        NoRule: there is a kind of records that this file does not know for the topic.
    """
    rules = _RULES[topic]
    for state in old:
        for kind in Kind:
            if state.count(kind) and kind not in rules and kind is not Kind.POSITION:
                raise NoRule(f"{topic}: records of kind {kind.name} have no rule")
    move = Move(old, partitions)
    for kind, rule in rules.items():  # in this order: findings and meters follow what points at them
        for place, state in enumerate(old):
            for ident in state.idents(kind):
                rule(move, place, ident)
    return move.new


# What findings are about


def _key_of_finding(known: OpenFinding) -> Iterable[bytes]:
    """A finding about a key names it in hex. A fork names its instance so, whose chains are on many partitions."""
    if known.finding.rule_id != "chain_fork":
        try:
            yield bytes.fromhex(known.finding.key)
        except ValueError:
            return


def _kek_of_finding(known: OpenFinding) -> Iterable[bytes]:
    yield known.finding.key.lower().encode()


def _principal_of_finding(known: OpenFinding) -> Iterable[bytes]:
    yield known.finding.principal.encode()


# key-events


def _key(move: Move, place: int, ident: bytes) -> None:
    """A key's history goes with the key; acts that name no key are kept where their instance led them."""
    nameless = ident.startswith(_WITHOUT_KEY)
    move.keep(place if nameless else move.home(ident), Kind.KEY, ident, place)


def _keys_meter(move: Move, place: int, ident: bytes) -> None:
    """Counts stay. Offsets of the old topic mean nothing in the new one, and nothing of it has been read."""
    state = move.old[place]
    if ident == keys.METER:
        meter = state.get(Kind.METER, ident, Meter) or Meter()
        fresh = Meter(**{name: getattr(meter, name) for name in Meter.__struct_fields__})
        fresh.refused, fresh.reached_ms = {}, 0
        move.new[place].put(Kind.METER, ident, fresh)
    elif ident == _WATCH:
        watch = state.get(Kind.METER, ident, _Watch) or _Watch()
        for key_id, due_ms in watch.due.items():
            one = _Watch({key_id: due_ms})
            move.merge(move.home(bytes.fromhex(key_id)), Kind.METER, ident, one, _both_watched)
    else:
        move.keep(place, Kind.METER, ident, place)


def _both_watched(one: _Watch, other: _Watch) -> _Watch:
    return _Watch(dict(sorted({**one.due, **other.due}.items())))


# vault-access: feeds hash as Kafka's producers do, others may have their own way. So a finding stays where it was; its
# next hit may begin another run of hits, of the same alert.


def _seen(move: Move, place: int, ident: bytes) -> None:
    """An access id does not tell its key: each partition that a copy can now come to knows it, for 26 hours."""
    for home in move.spread(place):
        move.keep(home, Kind.SEEN, ident, place)


def _vault_meter(move: Move, place: int, ident: bytes) -> None:
    """Counts stay; acts that two logs tell of must be known where the other log's record comes."""
    if not ident.startswith(twins.PREFIX):
        move.keep(place, Kind.METER, ident, place)
        return
    told = move.old[place].get(Kind.METER, ident, twins.Told) or twins.Told()
    for home in move.spread(place):
        own = twins.Told(own_us=list(told.own_us), activity_us=list(told.activity_us))
        move.merge(home, Kind.METER, ident, own, _both_told)


def _both_told(one: twins.Told, other: twins.Told) -> twins.Told:
    return twins.Told(
        own_us=sorted(nlargest(twins.MAX_TIMES, one.own_us + other.own_us)),
        activity_us=sorted(nlargest(twins.MAX_TIMES, one.activity_us + other.activity_us)),
    )


# correlate


def _use(move: Move, place: int, ident: bytes) -> None:
    known = move.old[place].get(Kind.USE, ident, UseState)
    assert known is not None
    home = move.home(partition_key(known.use.vault, known.use.name))
    move.keep(home, Kind.USE, ident, place)
    for fingerprint, _ in (*known.counted, *known.disabled):
        move.followed[bytes.fromhex(fingerprint)].add(home)


def _claim(move: Move, place: int, ident: bytes) -> None:
    known = move.old[place].get(Kind.CLAIM, ident, ClaimState)
    assert known is not None
    home = move.home(partition_key(known.claim.vault, known.claim.name))
    move.keep(home, Kind.CLAIM, ident, place)
    for fingerprint, _ in known.counted:
        move.followed[bytes.fromhex(fingerprint)].add(home)


def _instance(move: Move, place: int, ident: bytes) -> None:
    """Progress is told to every partition, so every new one must know all that was told."""
    known = move.old[place].get(Kind.SOURCE, ident, InstanceState)
    assert known is not None
    for home in range(len(move.new)):
        move.merge(home, Kind.SOURCE, ident, known, _further)


def _further(one: InstanceState, other: InstanceState) -> InstanceState:
    """A report beats a guess from a claim; of two reports the later counts; of two guesses the earlier begins."""
    if one.heard != other.heard:
        return one if one.heard else other
    if one.heard:
        return max(one, other, key=lambda known: (known.seen_ms, known.passed_ms))
    return min(one, other, key=lambda known: known.passed_ms)


def _retracted(move: Move, place: int, ident: bytes) -> None:
    """What was taken back of a finding goes where the finding goes, and only with the run of hits that goes on."""
    known = move.old[place].get(Kind.METER, ident, Retracted)
    assert known is not None
    for home, state in enumerate(move.new):
        finding = state.get(Kind.FINGERPRINT, ident, OpenFinding)
        if finding is not None and known.finding_id == finding.finding_id:
            move.merge(home, Kind.METER, ident, known, _more)


def _more(one: Retracted, other: Retracted) -> Retracted:
    return max(one, other, key=lambda known: known.retracted)


# who


def _who_meter(move: Move, place: int, ident: bytes) -> None:
    """Counts stay; since when each vault is known is told to every partition."""
    if ident != who.METER:
        move.keep(place, Kind.METER, ident, place)
        return
    known = move.old[place].get(Kind.METER, ident, who.WhoMeter) or who.WhoMeter()
    for home in range(len(move.new)):
        own = who.WhoMeter(vaults=dict(known.vaults))
        if home == place:
            own.late, own.out_of_range = known.late, known.out_of_range
            own.rejected, own.addresses_refused = known.rejected, known.addresses_refused
        move.merge(home, Kind.METER, ident, own, _both_counted)


def _both_counted(one: who.WhoMeter, other: who.WhoMeter) -> who.WhoMeter:
    vaults = dict(one.vaults)
    for vault, hour in other.vaults.items():
        vaults[vault] = min(hour, vaults.get(vault, hour))
    return who.WhoMeter(
        vaults=dict(sorted(vaults.items())),
        late=one.late + other.late,
        out_of_range=one.out_of_range + other.out_of_range,
        rejected=one.rejected + other.rejected,
        addresses_refused=one.addresses_refused + other.addresses_refused,
    )


_RULES: Final[Mapping[str, Mapping[Kind, Rule]]] = {
    KEY_EVENTS: {
        Kind.KEY: _key,
        Kind.CHAIN: stay(Kind.CHAIN),
        Kind.ROTATION: by(Kind.ROTATION, itself),
        Kind.FINGERPRINT: findings(_key_of_finding),
        Kind.METER: _keys_meter,
    },
    VAULT_ACCESS: {
        Kind.SEEN: _seen,
        Kind.FINGERPRINT: stay(Kind.FINGERPRINT),
        Kind.METER: _vault_meter,
    },
    CORRELATE: {
        Kind.KEK: by(Kind.KEK, itself),
        Kind.USE: _use,
        Kind.CLAIM: _claim,
        Kind.SOURCE: _instance,
        Kind.SEEN: by(Kind.SEEN, itself),
        Kind.BIN: stay(Kind.BIN),
        Kind.FINGERPRINT: findings(_kek_of_finding),
        Kind.METER: _retracted,
    },
    WHO: {
        Kind.PRINCIPAL: by(Kind.PRINCIPAL, itself),
        Kind.BIN: by(Kind.BIN, lambda ident: ident[:-_BIN_SUFFIX]),
        Kind.ADDRESS: by(Kind.ADDRESS, lambda ident: address_key(ident.decode())),
        Kind.FINGERPRINT: findings(_principal_of_finding),
        Kind.METER: _who_meter,
    },
}
MOVED: Final = tuple(_RULES)
"""Inputs whose state is parted anew."""
