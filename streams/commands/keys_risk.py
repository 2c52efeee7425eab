"""`keytrail keys`, what is at stake: what hangs on a key, and what is late."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands.core import Json, ask, core_answers
from streams.commands.indexed import index_answers
from streams.commands.monitored import IndexCopy, Monitor, monitored
from streams.commands.owners import Key, counted, print_rows
from streams.commands.terminal import NOT_ALL_WELL, complaint, console, print_json

if TYPE_CHECKING:
    from cryptocore.care.impact import BlastRadius
    from cryptocore.core import CryptoCore


def blast_radius(
    *,
    key: Key,
    index: IndexCopy = None,
    monitor: Monitor = False,
    as_json: Json = False,
) -> None:
    """Say what hangs on a key before it is touched: versions, tokens and, with the index, who used it lately."""

    async def read(core: "CryptoCore") -> "BlastRadius":
        from streams.index.usehistory import IndexHistory

        async with monitored(index, monitor=monitor) as documents:
            return await core.blast_radius(key, history=None if documents is None else IndexHistory(documents))

    with index_answers(index), core_answers():
        found = ask(read)
    print_radius(found, as_json=as_json)


def overdue(
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the vault how old KEKs are.")] = False,
    as_json: Json = False,
) -> None:
    """List what is late: keys, KEKs, rotations, expired tokens, incidents. Ends with 1 if anything is."""
    from cryptocore.care.compromise import owner_name

    async def read(core: "CryptoCore") -> list[dict[str, Any]]:
        created, purges = ({}, {}) if offline else await _of_vaults(core)
        late = await core.overdue(kek_created_ms=created, kek_purge_due_ms=purges)
        return [
            {
                "since": _at(one.due_ms),
                "kind": one.kind,
                "subject": one.subject,
                "owner": None if one.owner is None else owner_name(one.owner),
                "team": one.team,
                "what": one.what,
            }
            for one in late
        ]

    with core_answers():
        found = ask(read)
    if as_json:
        print_json(found)
    elif found:
        print_rows(_LATE, found)
    else:
        console.print("Nothing is late.")
    raise typer.Exit(NOT_ALL_WELL if found else 0)


_LATE = ("since", "kind", "subject", "owner", "team", "what")


def print_radius(found: "BlastRadius", *, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """Print what hangs on a key or a KEK; `more` goes into the JSON."""
    from cryptocore.care.compromise import owner_name

    keys = [
        {
            "owner": owner_name(one.owner),
            "key": one.key_id,
            "version": one.version,
            "state": one.state,
            "kek": f"{one.kek_alias}/{one.kek_version}",
        }
        for one in found.keys
    ]
    uses = None if found.uses is None else [
        {"service": one.service, "operation": one.operation, "count": one.count, "within_hours": one.within_ms / 3.6e6}
        for one in found.uses
    ]  # fmt: skip
    owners = [owner_name(owner) for owner in found.owners]
    tokens = [{"owner": owner_name(one.owner), "token_id": one.token_id, "key": one.key_id} for one in found.tokens]
    if as_json:
        print_json(
            {"subject": found.subject, "owners": owners, "keys": keys, "tokens": tokens, "uses": uses, **(more or {})}
        )
        return
    said = f"{found.subject}: {counted(owners, 'owner')}, {counted(keys, 'key version')}, {counted(tokens, 'token')}"
    console.print(said, markup=False, soft_wrap=True)
    print_rows(_RADIUS, keys)
    if tokens:
        print_rows(_TOKENS, tokens)
    if uses is None:
        console.print("Who used it lately is not established: --monitor or --index asks the monitor.")
    elif uses:
        print_rows(_USES, uses)
    else:
        console.print("The monitor saw no use of it in the last 30 days.")


_RADIUS = ("owner", "key", "version", "state", "kek")


_TOKENS = ("owner", "token id", "key")


_USES = ("service", "operation", "count", "within hours")


async def _of_vaults(core: "CryptoCore") -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """Ask when KEK versions were made and when deleted ones go; what is not answered is said and left out."""
    created, purges = {}, {}
    for kek in await core.keks.all():
        if kek.state is None:
            said = f"keytrail: {kek.alias}: {kek.problem}; its age is judged by key records"
            complaint.print(said, style="yellow", markup=False, soft_wrap=True)
            continue
        for one in kek.state.versions:
            if one.created_ms is not None:
                created[kek.alias, one.version] = one.created_ms
        if kek.state.purge_due_ms is not None:
            purges[kek.alias] = kek.state.purge_due_ms
    return created, purges


def _at(moment_ms: int) -> str:
    from cryptocore.clock import rfc3339_ms

    return rfc3339_ms(moment_ms)
