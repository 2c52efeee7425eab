"""What one bin of a principal shows beside its baseline: a Conduct for each vault, for the rules to judge. Pure."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from alerts.conduct import Conduct, Guessed, NewPair, Refused, Spread, Surge
from alerts.model import AccessClass, Severity
from alerts.thresholds import Limits
from streams.conduct.baselines import DAY_S, Profile, Reach, is_stale
from streams.conduct.bins import Bin, Cell, Door, doors, evidence, objects, split, vault_of

_RANKS: Final = tuple(Severity)
_EXAMPLES: Final = 5


class Past(Struct, frozen=True):
    """What stands around a bin: the bin before it, and since when (in seconds) the monitor knows each vault."""

    previous: Bin | None
    vaults_s: Mapping[str, int]
    joined: bool
    administers: bool = False


def observe(principal: str, profile: Profile, now: Bin, past: Past, limits: Limits) -> list[Conduct]:
    """Compare a bin with the baseline; one Conduct for each vault in which there is anything to judge.

    Args:
        principal: its id.
        profile: what was learned before this bin.
        now: the bin.
        past: `joined`: uses of keys are judged by the join, one by one, so that a first one is not told here;
            `administers`: so are the principal's administrative acts on keys.
        limits: how much is compared at all.
    """
    new, surges = _new(profile, now, past, limits), _surges(profile, now, limits)
    spread, refused, guessed = _spread(profile, now, past), _refused(profile, now, past, limits), _guessed(now, past)
    vaults = sorted({*new, *surges, *(found[0] for found in (spread, refused, guessed) if found is not None)})
    networks = _new_networks(profile, now, limits)
    found = []
    for vault in vaults:
        conduct = Conduct(
            principal_id=principal,
            principal_kind=now.kind,
            principal_label=now.label,
            principal_age_ms=max(0, now.start_s - profile.first_s) * 1000,
            principal_events=profile.events,
            relearning=_relearning(profile, vault, now.start_s, limits),
            address=now.address,
            vault=vault,
            vault_age_ms=_age_ms(past.vaults_s.get(vault), now.start_s) or 0,
            time_us=0,
            new=tuple(new.get(vault, ())),
            surges=tuple(surges.get(vault, ())),
            spread=spread[1] if spread is not None and spread[0] == vault else None,
            refused=refused[1] if refused is not None and refused[0] == vault else None,
            guessed=guessed[1] if guessed is not None and guessed[0] == vault else None,
            new_networks=networks,
        )
        found.append(_timed(conduct))
    return found


def _new(profile: Profile, now: Bin, past: Past, limits: Limits) -> dict[str, list[NewPair]]:
    found: dict[str, list[NewPair]] = {}
    for key, cell in sorted(now.pairs.items(), key=lambda item: (item[1].first_us, item[0])):
        known = profile.pairs.get(key)
        if known is not None and not is_stale(known.last_s, now.start_s, limits):
            continue
        vault, kind, name, access_class = split(key)
        if kind == "key" and _is_joined(access_class, past):
            continue
        reach = profile.reaches.get(f"{vault}/{access_class}")
        if reach is not None and is_stale(reach.last_s, now.start_s, limits):
            reach = None
        pair = NewPair(
            object_kind=kind,
            name=name,
            access_class=access_class,
            operation=cell.operation,
            at_us=cell.first_us,
            access_id=cell.first_id,
            class_age_ms=None if reach is None else _age_ms(reach.first_s, now.start_s),
            class_events=0 if reach is None else reach.events,
            novel_days=0 if reach is None else _recent_days(reach, now.start_s, limits),
            forgotten=reach is not None and not is_stale(reach.forgotten_s, now.start_s, limits),
            told=None if cell.told < 0 else _RANKS[cell.told],
        )
        found.setdefault(vault, []).append(pair)
    return found


def _is_joined(access_class: AccessClass, past: Past) -> bool:
    """Whether the join judges what somebody does with keys, act by act."""
    return (access_class is AccessClass.USE and past.joined) or (access_class is AccessClass.ADMIN and past.administers)


def _surges(profile: Profile, now: Bin, limits: Limits) -> dict[str, list[Surge]]:
    found: dict[str, list[Surge]] = {}
    for key, cell in sorted(now.pairs.items()):
        known = profile.pairs.get(key)
        if cell.count <= limits.volume_floor or known is None or is_stale(known.last_s, now.start_s, limits):
            continue
        vault, kind, name, access_class = split(key)
        surge = Surge(
            object_kind=kind,
            name=name,
            access_class=access_class,
            count=cell.count,
            usual=known.level.usual,
            accepted=known.level.accepted,
            active=known.level.active,
            age_ms=_age_ms(known.first_s, now.start_s) or 0,
            access_id=cell.first_id,
            at_us=cell.first_us,
        )
        found.setdefault(vault, []).append(surge)
    return found


def _spread(profile: Profile, now: Bin, past: Past) -> tuple[str, Spread] | None:
    if not objects(now):
        return None
    touched = objects(past.previous, now)
    level = profile.objects
    spread = Spread(
        objects=len(touched),
        usual=level.usual,
        accepted=level.accepted,
        active=level.active,
        vaults=len({vault_of(place) for place in touched}),
        evidence=evidence(touched.values()),
    )
    return _most(touched), spread


def _refused(profile: Profile, now: Bin, past: Past, limits: Limits) -> tuple[str, Refused] | None:
    if not now.refused:
        return None
    shut = doors(now.refused) if past.previous is None else doors(past.previous.refused, now.refused)
    held = {
        key[: key.rindex("/")] for key, pair in profile.pairs.items() if not is_stale(pair.last_s, now.start_s, limits)
    }
    refused = Refused(
        count=sum(door.count for door in shut.values()),
        objects=len(shut),
        held=sum(place in held for place in shut),
        denials=tuple(sorted({denial for door in shut.values() for denial in door.denials})) or ("403",),
        evidence=evidence(shut.values()),
    )
    return _most(shut), refused


def _guessed(now: Bin, past: Past) -> tuple[str, Guessed] | None:
    if not now.missing:
        return None
    names = doors(now.missing) if past.previous is None else doors(past.previous.missing, now.missing)
    return _most(names), Guessed(
        names=len(names), examples=tuple(sorted(names)[:_EXAMPLES]), evidence=evidence(names.values())
    )


def _new_networks(profile: Profile, now: Bin, limits: Limits) -> tuple[str, ...]:
    """Networks that are new to a principal with a past; one that comes from everywhere has none that is new."""
    age_ms = _age_ms(profile.first_s, now.start_s) or 0
    if age_ms < limits.learn_ms or profile.events < limits.learn_events:
        return ()
    known = {network for network, last_s in profile.networks.items() if not is_stale(last_s, now.start_s, limits)}
    if not known or len(known) >= limits.baseline_networks:
        return ()
    return tuple(network for network in now.networks if network not in known)


def _most(places: Mapping[str, Cell] | Mapping[str, Door]) -> str:
    """The vault with most of the places; of equals, the one that sorts first."""
    counts: dict[str, int] = {}
    for place in places:
        vault = vault_of(place)
        counts[vault] = counts.get(vault, 0) + 1
    return min(counts, key=lambda vault: (-counts[vault], vault))


def _timed(conduct: Conduct) -> Conduct:
    times = [pair.at_us for pair in conduct.new] + [surge.at_us for surge in conduct.surges]
    for sign in (conduct.spread, conduct.refused, conduct.guessed):
        times += [proof.at_ms * 1000 for proof in ([] if sign is None else sign.evidence)]
    return conduct.at(min(times))


def _age_ms(since_s: int | None, at_s: int) -> int | None:
    return None if since_s is None else max(0, at_s - since_s) * 1000


def _recent_days(reach: Reach, at_s: int, limits: Limits) -> int:
    return sum(not is_stale(day * DAY_S, at_s, limits) for day in reach.novel_days)


def _relearning(profile: Profile, vault: str, at_s: int, limits: Limits) -> bool:
    since_s = max(profile.reset_s.get("", 0), profile.reset_s.get(vault, 0))
    return (at_s - since_s) * 1000 < limits.learn_ms
