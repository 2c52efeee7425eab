"""What is usual for one principal: learned from its own past, bin by bin, in the order of event time. Pure.

What a rule would call far too much is learned as usual, so that an attack trains nothing. All is bounded, and forgotten
after 30 days without a sign. What a bin shows beside the baseline is put together in `conducts`.
"""

from collections.abc import Collection
from heapq import nsmallest
from typing import Final

from msgspec import Struct, field

from alerts.conduct import Conduct
from alerts.model import PrincipalKind
from alerts.thresholds import DAY_MS, Limits
from streams.conduct.bins import Bin, Cell, objects, split
from streams.conduct.levels import Level

DAY_S: Final = DAY_MS // 1000


class Pair(Struct, array_like=True):
    """One object and class: since when, until when, and how often at a time."""

    first_s: int
    last_s: int
    level: Level


class Reach(Struct, array_like=True):
    """One class in one vault: how well it is known. `novel_days` are days on which it met new objects."""

    first_s: int
    last_s: int
    events: int = 0
    novel_days: list[int] = []
    forgotten_s: int = 0


class Incident(Struct, array_like=True):
    """The run of signs in one vault that became one alert, and when it was last seen and told."""

    rule_id: str
    rank: int
    signs: list[str]
    last_s: int
    told_s: int


class Decision(Struct, array_like=True):
    """A person's command, as far as it has to be remembered."""

    id: str
    act: str
    vault: str
    person: str
    at_s: int


class Profile(Struct, kw_only=True, omit_defaults=True):
    """The baseline of one principal; times in seconds since the epoch. `reset_s` by vault, "" = all of it."""

    kind: PrincipalKind = PrincipalKind.UNKNOWN
    label: str | None = None
    first_s: int
    last_s: int
    events: int = 0
    pairs: dict[str, Pair] = {}
    reaches: dict[str, Reach] = {}
    objects: Level = field(default_factory=Level)
    networks: dict[str, int] = {}
    incidents: dict[str, Incident] = {}
    reset_s: dict[str, int] = {}
    decisions: list[Decision] = []
    evicted: int = 0
    pruned_day: int = 0


def learn(profile: Profile, now: Bin, previous: Bin | None, conducts: Collection[Conduct], limits: Limits) -> None:
    """Add a bin to the baseline, after it was judged."""
    judged = [conduct for conduct in conducts if not conduct.learning(limits)]
    beyond = {
        f"{conduct.vault}/{surge.object_kind}/{surge.name}/{surge.access_class}"
        for conduct in judged
        for surge in conduct.surges
        if surge.beyond(limits)
    }
    for key, cell in sorted(now.pairs.items()):  # so that the state is the same in any order of arrival
        _learn_pair(profile, key, cell, now.start_s, limits, beyond=key in beyond)
    if objects(now):
        collected = any(conduct.spreads(limits) for conduct in judged)
        profile.objects.learn(len(objects(previous, now)), beyond=collected)
    for network in now.learned_networks:
        profile.networks[network] = max(now.start_s, profile.networks.get(network, 0))
    profile.kind, profile.label = now.kind, now.label
    profile.events += now.succeeded
    profile.first_s, profile.last_s = min(profile.first_s, now.start_s), max(profile.last_s, now.start_s)
    _bound(profile, now.start_s, limits)


def is_stale(last_s: int, at_s: int, limits: Limits) -> bool:
    """Whether what was last seen then is forgotten by now."""
    return (at_s - last_s) * 1000 > limits.baseline_keep_ms


def _learn_pair(profile: Profile, key: str, cell: Cell, at_s: int, limits: Limits, *, beyond: bool) -> None:
    vault, _, _, access_class = split(key)
    pair, reach_key = profile.pairs.get(key), f"{vault}/{access_class}"
    reach = profile.reaches.get(reach_key)
    if reach is None or is_stale(reach.last_s, at_s, limits):
        reach = profile.reaches[reach_key] = Reach(at_s, at_s)
    if pair is None or is_stale(pair.last_s, at_s, limits):
        pair = profile.pairs[key] = Pair(at_s, at_s, Level())
        _note_novelty(reach, at_s, limits)
    pair.level.learn(cell.count, beyond=beyond)
    pair.first_s, pair.last_s = min(pair.first_s, at_s), max(pair.last_s, at_s)
    reach.first_s, reach.last_s = min(reach.first_s, at_s), max(reach.last_s, at_s)
    reach.events += cell.count


def _note_novelty(reach: Reach, at_s: int, limits: Limits) -> None:
    """Days with new objects count once the class itself is known: before, everything is new."""
    day = at_s // DAY_S
    if (at_s - reach.first_s) * 1000 >= limits.learn_ms and day not in reach.novel_days:
        reach.novel_days = sorted([*reach.novel_days, day])[-limits.habitual_days :]


def _bound(profile: Profile, at_s: int, limits: Limits) -> None:
    """Forget what is stale once a day, and what goes beyond the bounds at once."""
    if at_s // DAY_S > profile.pruned_day:
        profile.pruned_day = at_s // DAY_S
        profile.pairs = {key: one for key, one in profile.pairs.items() if not is_stale(one.last_s, at_s, limits)}
        profile.reaches = {key: one for key, one in profile.reaches.items() if not is_stale(one.last_s, at_s, limits)}
        profile.networks = {key: last for key, last in profile.networks.items() if not is_stale(last, at_s, limits)}
        profile.reset_s = {key: since for key, since in profile.reset_s.items() if not is_stale(since, at_s, limits)}
        quiet_s = limits.incident_quiet_ms // 1000
        profile.incidents = {key: one for key, one in profile.incidents.items() if at_s - one.last_s <= quiet_s}
    surplus = len(profile.pairs) - limits.baseline_pairs
    for key in nsmallest(surplus, profile.pairs, key=lambda key: (profile.pairs[key].last_s, key)):
        del profile.pairs[key]
        vault, _, _, access_class = split(key)
        reach = profile.reaches.get(f"{vault}/{access_class}")
        if reach is not None:
            reach.forgotten_s = at_s
        profile.evicted += 1
    surplus = len(profile.reaches) - limits.baseline_pairs
    for key in nsmallest(surplus, profile.reaches, key=lambda key: (profile.reaches[key].last_s, key)):
        del profile.reaches[key]
        profile.evicted += 1
    surplus = len(profile.networks) - limits.baseline_networks
    for key in nsmallest(surplus, profile.networks, key=lambda key: (profile.networks[key], key)):
        del profile.networks[key]
