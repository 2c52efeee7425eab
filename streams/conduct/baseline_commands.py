"""`keytrail baselines`: show what is usual for a principal, accept a new level, reset. Pure; the command line wires it.

show reads the state of the topic `who`; accept and reset are messages into it, so that one step alone changes
baselines and every command is in the log.
"""

from collections.abc import Iterable
from typing import Any, Final, Literal

from cryptocore.clock import rfc3339_ms
from streams.conduct.baselines import Decision, Profile
from streams.conduct.bins import split, vault_of
from streams.conduct.levels import Level
from streams.conduct.observations import BaselineCommand, encode, principal_key
from streams.state import Kind, State

MAX_DECISIONS: Final = 16
ELLIPSIS: Final = "…"


def command(
    act: Literal["accept", "reset"], principal: str, *, vault: str = "", person: str, note: str = "", ident: str
) -> tuple[bytes, bytes]:
    """Return key and value of the message for the topic `who`.

    Args:
        act: accept or reset.
        principal: the id as in the alert.
        vault: its name; "" for all vaults.
        person: who decides, as asserted by whoever may write to the topic.
        note: why.
        ident: random; the same one counts once.
    """
    key = principal_key(principal)
    said = BaselineCommand(v=1, id=ident, act=act, principal=key, vault=vault.lower(), person=person, note=note)
    return key.encode(), encode(said)


def obey(profile: Profile, said: BaselineCommand, at_s: int) -> bool:
    """Carry a command out; False where it was carried out before."""
    if any(done.id == said.id for done in profile.decisions):
        return False
    if said.act == "accept":
        _accept(profile, said.vault)
    else:
        _reset(profile, said.vault, at_s)
    done = Decision(said.id, said.act, said.vault, said.person, at_s)
    profile.decisions = [*profile.decisions, done][-MAX_DECISIONS:]
    return True


def profiles(state: State, said: str) -> dict[str, Profile]:
    """Return what is usual for those whom `matches` finds in a partition of `who`, by their ids."""
    found = matches((ident.decode() for ident in state.idents(Kind.PRINCIPAL)), said)
    known = ((ident, state.get(Kind.PRINCIPAL, ident.encode(), Profile)) for ident in found)
    return {ident: profile for ident, profile in known if profile is not None}


def matches(idents: Iterable[str], said: str) -> list[str]:
    """Return the principals that somebody may mean who writes the start of an id, or its short form as in an alert."""
    lowered = said.strip().lower().replace("...", ELLIPSIS)
    start, _, end = lowered.partition(ELLIPSIS)
    least = len(start) + len(end)
    return [one for one in idents if one.startswith(start) and one.endswith(end) and len(one) >= least]


def is_shortened(said: str) -> bool:
    """Say whether something was left out of an id, as alerts do."""
    return ELLIPSIS in said.replace("...", ELLIPSIS)


def show(principal: str, profile: Profile) -> dict[str, Any]:
    """Return what is usual for a principal, for people and as JSON: objects by how well they are known."""
    ordered = sorted(profile.pairs.items(), key=lambda item: (-item[1].level.active, item[0]))
    return {
        "principal": principal,
        "kind": profile.kind.value,
        "label": profile.label,
        "since": rfc3339_ms(profile.first_s * 1000),
        "last": rfc3339_ms(profile.last_s * 1000),
        "events": profile.events,
        "objects_within_ten_minutes": _level(profile.objects),
        "networks": sorted(profile.networks),
        "evicted": profile.evicted,
        "baselines": [_pair(key, pair.level, pair.first_s, pair.last_s) for key, pair in ordered],
        "decisions": [
            {"act": done.act, "vault": done.vault or "all", "person": done.person, "at": rfc3339_ms(done.at_s * 1000)}
            for done in profile.decisions
        ],
    }


def _pair(key: str, level: Level, first_s: int, last_s: int) -> dict[str, Any]:
    vault, kind, name, access_class = split(key)
    return {
        "vault": vault,
        "object": f"{kind} {name}".strip() or "the vault itself",
        "class": access_class.value,
        "since": rfc3339_ms(first_s * 1000),
        "last": rfc3339_ms(last_s * 1000),
    } | _level(level)


def _level(level: Level) -> dict[str, int]:
    return {
        "windows": level.active,
        "usual": level.usual,
        "accepted": level.accepted,
        "told_up_to": level.peak,
    }


def _accept(profile: Profile, vault: str) -> None:
    profile.objects.accept()
    for key, pair in profile.pairs.items():
        if not vault or vault_of(key) == vault:
            pair.level.accept()


def _reset(profile: Profile, vault: str, at_s: int) -> None:
    """Forget all of it, or one vault's part; what comes next is learned without being told."""
    profile.reset_s[vault] = at_s
    profile.pairs = {key: pair for key, pair in profile.pairs.items() if vault and vault_of(key) != vault}
    profile.reaches = {key: reach for key, reach in profile.reaches.items() if vault and vault_of(key) != vault}
    profile.incidents = {key: one for key, one in profile.incidents.items() if vault and key != vault}
    if vault:
        return
    profile.first_s, profile.events = at_s, 0
    profile.objects, profile.networks = Level(), {}
