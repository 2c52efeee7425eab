"""A key is believed to be in other hands: what is done at once, in one call, and written down as an incident.

The order counts: the incident is on record before anything is done, so that a crash leaves word of it; a new version is
tried for a few seconds, so that the owner can go on; then, whatever came of that, the versions in question are revoked
and the owner's tokens are invalidated, which needs the database only. Repeating the call goes on where it was.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypedDict

from cryptocore.audit import Subject
from cryptocore.care.classes import KeyLabel, Labels
from cryptocore.care.impact import BlastRadius, of_key
from cryptocore.care.incident_facts import Change, Incident
from cryptocore.care.incidents import Incidents
from cryptocore.care.terms import IncidentKind
from cryptocore.core_keys import raw_key_id
from cryptocore.envelope import Owner
from cryptocore.errors import CoreError, Failed, InvalidTransition
from cryptocore.keyinfo import KeyInfo
from cryptocore.keys import KeyAct, KeyReason, KeyState, permits
from cryptocore.lines.texts import PERSON
from cryptocore.store.key_store import KeyVersion
from cryptocore.tokens.rows import Reach
from cryptocore.tokens.vault import TokenVault

if TYPE_CHECKING:
    from cryptocore.care.impact import UseHistory
    from cryptocore.core import CryptoCore

MAX_NAMED: Final = 1_000
"""Tokens that an incident names one by one; each has its event besides."""
VAULT_WAIT_S: Final = 10.0
"""How long the revocation waits for a new version, at most."""


class Who(TypedDict):
    """Who acts, and what for."""

    actor: str
    purpose: str


@dataclass(frozen=True, slots=True)
class Compromise:
    """What was done about a compromised key.

    Attributes:
        incident: None when the database did not take it; what could be done was done, and `not_recorded` says why.
        rotated: the version that takes its place; None when there is none, and `not_rotated` says why.
        revoked: versions, by this call.
        tokens: that ended, by this call.
        notify: whom to tell; nobody has been told.
    """

    incident: Incident | None
    not_recorded: str | None
    rotated: KeyInfo | None
    not_rotated: str | None
    revoked: tuple[KeyInfo, ...]
    tokens: int
    notify: tuple[str, ...] = field(default=())


async def compromise(
    core: "CryptoCore",
    key_id: str,
    *,
    summary: str,
    subject: Subject,
    occurred_ms: int | None = None,
    detected_ms: int | None = None,
    versions: Sequence[int] | None = None,
    history: "UseHistory | None" = None,
    incidents: Incidents | None = None,
) -> Compromise:
    """Do what a compromised key asks for.

    1. The versions in question: those given, else those of the incident that is open for the key, else all that live.
    2. The incident, open before anything is done.
    3. A new version for the owner, if the vault gives one in time.
    4. The versions revoked.
    5. The owner's tokens invalidated.
    6. The incident says what was done and whom to notify.

    Raises:
        InvalidTransition: there is no such key.
        KeyUnavailable: the database does not answer; repeat the call.
    """
    parts = core.parts
    incidents = incidents or Incidents(parts)
    acting: Who = {"actor": subject.actor, "purpose": subject.purpose}
    # 1
    raw = raw_key_id(key_id)
    known = await parts.read(parts.store.versions, raw)
    if not known:
        raise InvalidTransition(f"there is no key {key_id}")
    live = (one.number for one in known if permits(one.record.state, one.newest, KeyAct.REVOKE))
    numbers = tuple(number for number in live if versions is None or number in versions)
    # 2
    incident, not_recorded = None, None
    try:
        incident = await _open_for(incidents, raw.hex()) or await incidents.open(
            IncidentKind.KEY,
            summary,
            occurred_ms=occurred_ms,
            detected_ms=detected_ms,
            key_id=raw.hex(),
            versions=numbers,
            **acting,
        )
        numbers = incident.facts.versions if versions is None else numbers
    except Failed as err:
        not_recorded = str(err)
    # 3
    rotated, not_rotated = await _rotated(core, known, numbers, subject)
    # 4
    note = f"incident {incident.id}" if incident is not None and subject.actor.startswith(PERSON) else None
    revoked = [await _revoke(core, key_id, number, subject, note) for number in reversed(numbers)]
    done = tuple(info for infos in revoked for info in infos)
    # 5
    reach = await of_key(parts, key_id)
    vault, reason = TokenVault(core), KeyReason.COMPROMISE_SUSPECTED
    tokens = await vault.invalidate_all(Reach(owner=known[0].owner), reason=reason, note=note, **acting)
    # 6
    try:
        label = await Labels(parts).of(key_id)
    except Failed:
        label = None  # somebody else wrote it: the team it names is not to be believed
    notify = _notify(known[0].owner, label, await _services(raw.hex(), history))
    if incident is not None:
        said = [
            f"revoked {len(done)} versions, invalidated {tokens} tokens",
            f"new version {rotated.key_id}/{rotated.version}" if rotated else f"no new version: {not_rotated}",
        ]
        affected = _affected(raw.hex(), numbers, reach)
        change = Change(affected=affected, notify=notify, versions=numbers, note="; ".join(said))
        try:
            incident = await incidents.update(incident.id, change, **acting)
        except Failed as err:
            not_recorded = str(err)
    return Compromise(incident, not_recorded, rotated, not_rotated, done, tokens, notify)


async def _open_for(incidents: Incidents, key_id: str) -> Incident | None:
    for incident in await incidents.all():
        if incident.facts.kind is IncidentKind.KEY and incident.facts.key_id == key_id:
            return incident
    return None


async def _rotated(
    core: "CryptoCore", known: Sequence[KeyVersion], numbers: Sequence[int], subject: Subject
) -> tuple[KeyInfo | None, str | None]:
    """Give the owner a version that is not in question, or say why there is none."""
    newest = next((one for one in known if one.record.state is KeyState.ACTIVE and one.newest), None)
    if newest is None:
        return None, "no version of the key is active"
    owner = newest.owner
    if newest.number not in numbers:
        return await core.describe(owner), None
    rotating = core.rotate(owner, reason=KeyReason.COMPROMISE_SUSPECTED, actor=subject.actor, purpose=subject.purpose)
    try:
        async with asyncio.timeout(VAULT_WAIT_S):
            return await rotating, None
    except TimeoutError:
        return None, "the vault did not answer in time"
    except (CoreError, OSError) as err:
        return None, type(err).__name__


async def _revoke(core: "CryptoCore", key_id: str, number: int, subject: Subject, note: str | None) -> list[KeyInfo]:
    """Revoke one version; of one that is revoked already there is nothing to say."""
    raw = raw_key_id(key_id)
    version = await core.parts.read(core.parts.store.version, raw, number)
    if version is None or not permits(version.record.state, version.newest, KeyAct.REVOKE):
        return []
    return await core.revoke(
        key_id,
        reason=KeyReason.COMPROMISE_SUSPECTED,
        version=number,
        note=note,
        actor=subject.actor,
        purpose=subject.purpose,
    )


def owner_name(owner: Owner) -> str:
    """Name an owner in one word."""
    return owner.secret_name if owner.secret_name is not None else f"{owner.tenant_id}/{owner.integration_id}"


def _affected(key_id: str, numbers: Sequence[int], reach: BlastRadius) -> tuple[str, ...]:
    return (
        *(f"owner:{owner_name(owner)}" for owner in reach.owners),
        *(f"key:{key_id}/{number}" for number in numbers),
        *(f"token:{owner_name(token.owner)}:{token.token_id}" for token in reach.tokens[:MAX_NAMED]),
        *([f"tokens:{len(reach.tokens)} in all"] if len(reach.tokens) > MAX_NAMED else []),
    )


async def _services(key_id: str, history: "UseHistory | None") -> list[str]:
    """Ask who used the key; whatever goes wrong there must not undo what was done here."""
    try:
        return [] if history is None else sorted({use.service for use in await history.of_key(key_id)})
    except Exception:  # noqa: BLE001 - an index may fail in its own ways
        return []


def _notify(owner: Owner, label: KeyLabel | None, services: Sequence[str]) -> tuple[str, ...]:
    """List who has to hear of it; customers only once somebody has decided so (policy 10c)."""
    return (
        "role:security",
        *([f"team:{label.team}"] if label else []),
        *(f"service:{service}" for service in services),
        *([f"tenant:{owner.tenant_id}"] if owner.tenant_id else []),
    )
