"""`keytrail keks`, to look: what the vaults say of KEKs, how far a rewrap is, what depends on one."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands.core import Json, ask, core_answers
from streams.commands.indexed import index_answers
from streams.commands.keys_destroy import CopiesFile, copies_of, tell_unbelieved
from streams.commands.keys_risk import print_radius
from streams.commands.monitored import IndexCopy, Monitor, monitored
from streams.commands.owners import cell, print_rows
from streams.commands.terminal import NOT_ALL_WELL, console, print_json, print_table

if TYPE_CHECKING:
    from cryptocore.care.impact import BlastRadius
    from cryptocore.core import CryptoCore
    from cryptocore.keks.dependence import Dependence
    from cryptocore.keks.ends import KekEnds
    from cryptocore.keks.looking import Kek

Alias = Annotated[str, typer.Argument(help="The KEK, by its alias.", metavar="KEK")]


def list_(*, as_json: Json = False) -> None:
    """List the configured KEKs, what their vault says of them, and how many key versions are under each."""
    with core_answers():
        found = [shown_kek(one) for one in ask(lambda core: core.keks.all())]
    if as_json:
        print_json(found)
    else:
        print_rows(_HEADS, found)
    raise typer.Exit(NOT_ALL_WELL if any(one["problem"] for one in found) else 0)


_HEADS = ("kek", "vault key", "state", "current", "key versions", "for new keys", "purge due", "problem")


def show(*, kek: Alias, as_json: Json = False) -> None:
    """Show a KEK, version by version; those that were purged, too."""

    async def read(core: "CryptoCore") -> "tuple[Kek, KekEnds]":
        return await core.keks.get(kek), await core.keks.ends()

    with core_answers():
        found, ends = ask(read)
    tell_unbelieved(ends)
    print_kek(shown_kek(found, ends), as_json=as_json)


def rewrap_status(*, kek: Alias, as_json: Json = False) -> None:
    """Say how many key versions are under the newest version of a KEK, and how many under older ones."""
    with core_answers():
        found = ask(lambda core: core.keks.get(kek))
    current = None if found.state is None else found.state.current
    waiting = {version: count for version, count in found.deks.items() if version != current}
    shown = {"kek": kek, "current": current, "done": found.deks.get(current or "", 0), "waiting": waiting}
    if as_json:
        print_json(shown)
        return
    left = sum(waiting.values())
    said = f"{shown['done']:,} key versions under the newest version {current}, {left:,} under others"
    console.print(said, markup=False, soft_wrap=True)
    if waiting:
        print_table(("version", "key versions"), [[version, f"{count:,}"] for version, count in waiting.items()])
        console.print(f"keytrail keys rewrap {kek} moves them.", markup=False)


def blast_radius(
    *,
    kek: Alias,
    version: Annotated[str | None, typer.Option(help="One version; else all.")] = None,
    copies: CopiesFile = None,
    index: IndexCopy = None,
    monitor: Monitor = False,
    as_json: Json = False,
) -> None:
    """Say what hangs on a KEK before it is touched: owners, keys, tokens, declared copies; who used it lately."""
    declared = copies_of(copies)

    async def read(core: "CryptoCore") -> "tuple[BlastRadius, Dependence]":
        from streams.index.usehistory import IndexHistory

        async with monitored(index, monitor=monitor) as documents:
            history = None if documents is None else IndexHistory(documents)
            radius = await core.blast_radius(kek=kek, kek_version=version, history=history)
        return radius, await core.keks.dependence(kek, version, copies=declared)

    with index_answers(index), core_answers():
        radius, found = ask(read)
    print_radius(radius, as_json=as_json, more={"depends": not found.none, "dependence": str(found)})
    if not as_json:
        console.print(f"By all signed records: {found}.", markup=False, soft_wrap=True)


def shown_kek(kek: "Kek", ends: "KekEnds | None" = None) -> dict[str, Any]:
    """Give a KEK as JSON shows it, with versions that are gone where their ends are given."""
    from cryptocore.clock import rfc3339_ms

    def at(moment_ms: int | None) -> str | None:
        return None if moment_ms is None else rfc3339_ms(moment_ms)

    state = kek.state
    known = {one.version for one in state.versions} if state else set()
    versions: list[dict[str, Any]] = [
        {
            "version": one.version,
            "state": "enabled" if one.enabled else "disabled",
            "current": state is not None and one.version == state.current,
            "created": at(one.created_ms),
            "expires": at(one.expires_ms),
            "key_versions": kek.deks.get(one.version, 0),
        }
        for one in (state.versions if state else ())
    ]
    gone = {one.version: one.gone_ms for one in (ends.known if ends else ()) if one.alias == kek.alias and one.gone_ms}
    versions += [
        {
            "version": version,
            "state": f"purged, gone by {at(gone[version])}" if version in gone else "not shown by the vault",
            "current": False,
            "key_versions": kek.deks.get(version, 0),
        }
        for version in dict.fromkeys((*kek.deks, *gone))
        if version not in known
    ]
    return {
        "kek": kek.alias,
        "vault_key": f"{kek.vault}/{kek.name}",
        "state": "not known" if state is None else state.presence,
        "current": None if state is None else state.current,
        "for_new_keys": kek.for_new_keys,
        "key_versions": sum(kek.deks.values()),
        "deleted": at(state.deleted_ms) if state else None,
        "purge_due": at(state.purge_due_ms) if state else None,
        "versions": versions,
        "problem": kek.problem,
    }


def print_kek(found: dict[str, Any], *, as_json: bool) -> None:
    """Print a KEK as `shown_kek` gives it."""
    if as_json:
        print_json(found)
        return
    for name in ("kek", "vault_key", "state", "for_new_keys", "deleted", "purge_due", "problem"):
        if found[name]:
            console.print(f"{name.replace('_', ' '):13} {cell(found[name])}", markup=False, soft_wrap=True)
    if found["versions"]:
        print_rows(_VERSION, found["versions"])


_VERSION = ("version", "state", "current", "created", "expires", "key versions")
