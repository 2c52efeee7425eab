"""`keytrail keys`, to act: make, activate, rotate, suspend, resume, revoke, archive; and a compromise."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryptocore.keys import KeyReason
from streams.commands.core import (
    ADMINISTRATION,
    Actor,
    Json,
    Note,
    Purpose,
    Yes,
    a_person,
    act,
    ask,
    confirm,
    core_answers,
    told,
)
from streams.commands.indexed import index_answers
from streams.commands.monitored import IndexCopy, Monitor, monitored
from streams.commands.owners import Integration, Key, Secret, Tenant, Version, counted, owner_of, whose
from streams.commands.terminal import console, fail, print_json, said_ms

if TYPE_CHECKING:
    from cryptocore.care.compromise import Compromise
    from cryptocore.core import CryptoCore
    from cryptocore.keyinfo import KeyInfo

Why = Annotated[KeyReason, typer.Option(help="As records and events say it.")]
Kek = Annotated[str | None, typer.Option(help="The KEK, by alias; else that of new keys.")]


def create(
    *,
    actor: Actor,
    tenant: Tenant = None,
    integration: Integration = None,
    secret: Secret = None,
    kek: Kek = None,
    active: Annotated[bool, typer.Option("--activate", help="Let it encrypt at once.")] = False,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Make a key for an owner who has none that lives; it waits for `activate`."""
    a_person(actor)

    async def work(core: "CryptoCore") -> "list[KeyInfo]":
        owner = owner_of(tenant, integration, secret)
        if kek is not None:
            core.keks.wrapper(kek)
        made = await core.create_key(owner, kek_alias=kek, actor=actor, purpose=purpose)
        return [await core.activate(made.key_id, actor=actor, purpose=purpose) if active else made]

    _done(work, as_json=as_json)


def activate(
    *,
    key: Key,
    actor: Actor,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Let a key encrypt."""
    a_person(actor)

    async def work(core: "CryptoCore") -> "list[KeyInfo]":
        return [await core.activate(key, actor=actor, purpose=purpose)]

    _done(work, as_json=as_json)


def rotate(
    *,
    key: Annotated[str | None, typer.Argument(help="The key; or its owner, by options.", metavar="KEY")] = None,
    actor: Actor,
    tenant: Tenant = None,
    integration: Integration = None,
    secret: Secret = None,
    reason: Why = KeyReason.SCHEDULED,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Give an owner a new version for new data; the one before still decrypts, and its rotation is open."""
    a_person(actor)

    async def work(core: "CryptoCore") -> "list[KeyInfo]":
        owner = owner_of(tenant, integration, secret) if key is None else await whose(core, key)
        if key is not None and (newest := await core.describe(owner)).key_id != key.lower():
            raise fail(f"its owner's key is {newest.key_id} now")
        return [await core.rotate(owner, reason=reason, actor=actor, purpose=purpose)]

    _done(work, as_json=as_json)


def suspend(
    *,
    key: Key,
    actor: Actor,
    version: Version = None,
    reason: Why = KeyReason.OPERATOR,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Stop all use of a key until `resume`. Needs the database only."""
    by = told(actor, purpose, note, version=version)
    _done(lambda core: core.suspend(key, reason=reason, **by), as_json=as_json)


def resume(
    *,
    key: Key,
    actor: Actor,
    version: Version = None,
    reason: Why = KeyReason.OPERATOR,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """End a suspension."""
    by = told(actor, purpose, note, version=version)
    _done(lambda core: core.resume(key, reason=reason, **by), as_json=as_json)


def revoke(
    *,
    key: Key,
    actor: Actor,
    version: Version = None,
    reason: Why = KeyReason.COMPROMISE_SUSPECTED,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take a key out of service for good: what is under it cannot be read any more. Needs the database only."""
    by = told(actor, purpose, note, version=version)
    with core_answers():
        _confirmed("Revoke", key, version, yes=yes)
    _done(lambda core: core.revoke(key, reason=reason, **by), as_json=as_json)


def archive(
    *,
    key: Key,
    actor: Actor,
    version: Version = None,
    reason: Why = KeyReason.OPERATOR,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take a key out of use for good, and keep it. Needs the database only."""
    by = told(actor, purpose, note, version=version)
    with core_answers():
        _confirmed("Archive", key, version, yes=yes)
    _done(lambda core: core.archive(key, reason=reason, **by), as_json=as_json)


def compromise(
    *,
    key: Key,
    summary: Annotated[str, typer.Argument(help="What was seen, in one line.")],
    actor: Actor,
    version: Annotated[list[int], typer.Option(min=1, help="A version in question. Repeatable; else all.")] = [],  # noqa: B006 - typer's way to say "none"
    occurred: Annotated[str | None, typer.Option(help="When it began: a date, a time, or how long ago (36h).")] = None,
    index: IndexCopy = None,
    monitor: Monitor = False,
    purpose: Purpose = ADMINISTRATION,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Rotate if the vault answers, revoke in any case, end the owner's tokens, open an incident. Tells no customer."""
    a_person(actor)

    async def work(core: "CryptoCore") -> "Compromise":
        from streams.index.usehistory import IndexHistory

        async with monitored(index, monitor=monitor) as documents:
            return await core.compromise(
                key,
                summary,
                occurred_ms=_ms(occurred),
                versions=version or None,
                history=None if documents is None else IndexHistory(documents),
                actor=actor,
                purpose=purpose,
            )

    with index_answers(index), core_answers():
        _confirmed("Revoke", key, None, yes=yes)
        found = act(work)
    _print_compromise(found, as_json=as_json)


def _confirmed(verb: str, key: str, version: int | None, *, yes: bool) -> None:
    """Ask, saying what hangs on the key."""
    if yes:
        return
    from cryptocore.care.compromise import owner_name

    found = ask(lambda core: core.blast_radius(key))
    numbers = [one.version for one in found.keys if version in (None, one.version)]
    what = f"version {', '.join(map(str, numbers))}" if numbers else "nothing"
    owners = ", ".join(map(owner_name, found.owners)) or "nobody"
    confirm(
        f"{verb} {what} of key {key} of {owners}, with {counted(found.tokens, 'token')} under it, for good?", yes=yes
    )


def _done(work: "Callable[[CryptoCore], Coroutine[Any, Any, list[KeyInfo]]]", *, as_json: bool) -> None:
    from cryptocore.care.compromise import owner_name

    with core_answers():
        changed = act(work)
    if as_json:
        print_json([_shown(one) for one in changed])
        return
    for one in changed:
        said = f"{owner_name(one.owner)}: key {one.key_id} version {one.version} is {one.state}"
        console.print(said, markup=False, soft_wrap=True)


def _shown(info: "KeyInfo") -> dict[str, Any]:
    from cryptocore.care.compromise import owner_name

    return {
        "owner": owner_name(info.owner),
        "key": info.key_id,
        "version": info.version,
        "revision": info.revision,
        "state": info.state,
        "kek": f"{info.kek_alias}/{info.kek_version}",
    }


def _print_compromise(found: "Compromise", *, as_json: bool) -> None:
    shown = {
        "incident": None if found.incident is None else found.incident.id,
        "not_recorded": found.not_recorded,
        "rotated": None if found.rotated is None else _shown(found.rotated),
        "not_rotated": found.not_rotated,
        "revoked": [_shown(one) for one in found.revoked],
        "tokens_ended": found.tokens,
        "notify": list(found.notify),
    }
    if as_json:
        print_json(shown)
        return
    incident = shown["incident"] or f"none recorded: {found.not_recorded}"
    rotated = f"version {found.rotated.version}" if found.rotated else f"none: {found.not_rotated}"
    lines = {
        "incident": incident,
        "new version": rotated,
        "revoked": ", ".join(f"version {one.version}" for one in found.revoked) or "nothing that was not before",
        "tokens": f"{found.tokens:,} ended",
        "to notify": ", ".join(found.notify) or "nobody is named",
    }
    for name, value in lines.items():
        console.print(f"{name:12} {value}", markup=False, soft_wrap=True)
    console.print("Nobody has been written to.")


def _ms(text: str | None) -> int | None:
    wrong = f"--occurred {text}: not a date, a time or a span such as 36h"
    return None if text is None else said_ms(text, otherwise=wrong)
