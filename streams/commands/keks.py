"""`keytrail keks`: the configured KEKs, whose life is in a vault, and what depends on them."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands import approving
from streams.commands.approving import Approvals
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
)
from streams.commands.indexed import index_answers
from streams.commands.keys_destroy import CopiesFile, copies_of
from streams.commands.keys_look import print_radius
from streams.commands.monitored import IndexCopy, Monitor, monitored
from streams.commands.owners import cell, print_rows
from streams.commands.terminal import NOT_ALL_WELL, console, fail, print_json, print_table

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore
    from cryptocore.impact import BlastRadius
    from cryptocore.kek_dependence import Dependence
    from cryptocore.keks import Giving, Kek

keks = typer.Typer(help="KEKs, in their vault (docs/keys.md).", no_args_is_help=True)

Alias = Annotated[str, typer.Argument(help="The KEK, by its alias.", metavar="KEK")]
Version = Annotated[str, typer.Option(help="The version, as the vault names it.")]
Loss = Annotated[
    Path | None,
    typer.Option(
        "--accept-loss",
        help="Go on though data is lost: FILE lists whose. It is written for two people to approve; then repeat.",
    ),
]


@keks.command("list")
def list_(*, as_json: Json = False) -> None:
    """List the configured KEKs, what their vault says of them, and how many key versions are under each."""
    with core_answers():
        found = [_shown(one) for one in ask(lambda core: core.keks.all())]
    if as_json:
        print_json(found)
    else:
        print_rows(_HEADS, found)
    raise typer.Exit(NOT_ALL_WELL if any(one["problem"] for one in found) else 0)


_HEADS = ("kek", "vault key", "state", "current", "key versions", "for new keys", "purge due", "problem")


@keks.command()
def show(*, kek: Alias, as_json: Json = False) -> None:
    """Show a KEK, version by version."""
    with core_answers():
        found = _shown(ask(lambda core: core.keks.get(kek)))
    _print(found, as_json=as_json)


@keks.command()
def create(
    *,
    kek: Alias,
    actor: Actor,
    hsm: Annotated[bool, typer.Option("--hsm", help="In hardware (RSA-HSM).")] = False,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Make the key of a configured alias in its vault; it may wrap and unwrap, nothing else."""
    told = _told(actor, purpose, note)
    _done(lambda core: core.keks.create(kek, hsm=hsm, **told), as_json=as_json)


@keks.command()
def rotate(
    *,
    kek: Alias,
    actor: Actor,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Make a new version. Then: `keytrail keys rewrap`, and `disable` for the old one."""
    told = _told(actor, purpose, note)
    _done(lambda core: core.keks.rotate(kek, **told), as_json=as_json)


@keks.command("rewrap-status")
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


@keks.command()
def enable(
    *,
    kek: Alias,
    version: Version,
    actor: Actor,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Let a version be used again."""
    told = _told(actor, purpose, note)
    _done(lambda core: core.keks.enable(kek, version, **told), as_json=as_json)


@keks.command()
def disable(
    *,
    kek: Alias,
    version: Version,
    actor: Actor,
    copies: CopiesFile = None,
    accept_loss: Loss = None,
    approvals: Approvals = [],  # noqa: B006 - typer's way to say "none"
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Stop all use of a version on which nothing depends any more. `enable` brings it back."""
    told = _told(actor, purpose, note)
    with core_answers():
        giving = _giving("disable", kek, version, copies, accept_loss, approvals)
        if giving.accept_loss is not None:
            confirm(f"Disable version {version} of {kek} although data under it can then not be read?", yes=yes)
    _done(lambda core: core.keks.disable(kek, version, giving=giving, **told), as_json=as_json)


@keks.command()
def delete(
    *,
    kek: Alias,
    actor: Actor,
    copies: CopiesFile = None,
    accept_loss: Loss = None,
    approvals: Approvals = [],  # noqa: B006 - typer's way to say "none"
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete a KEK on which nothing depends any more, all its versions; `recover` brings it back until it is purged."""
    told = _told(actor, purpose, note)
    with core_answers():
        giving = _giving("delete", kek, None, copies, accept_loss, approvals)
        confirm(f"Delete the KEK {kek} with all its versions?", yes=yes)
    _done(lambda core: core.keks.delete(kek, giving=giving, **told), as_json=as_json)


@keks.command()
def purge(
    *,
    kek: Alias,
    actor: Actor,
    statement: Annotated[
        Path | None, typer.Option(help="Only write what two people have to approve into this new file.")
    ] = None,
    copies: CopiesFile = None,
    accept_loss: Loss = None,
    approvals: Approvals = [],  # noqa: B006 - typer's way to say "none"
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Purge a deleted KEK for good, as two people approved (--statement FILE first, then --approvals)."""
    told = _told(actor, purpose, note)
    with core_answers():
        if statement is not None:
            approving.write_new(statement, ask(lambda core: core.keks.purge_statement(kek)))
            _to_approve(statement)
            return
        if not approvals:
            raise fail("two people approve a purge: write what they approve with --statement FILE")
        giving = _giving("purge", kek, None, copies, accept_loss, approvals)
        confirm(f"Purge the KEK {kek}? Nothing brings it back.", yes=yes)
    _done(lambda core: core.keks.purge(kek, giving=giving, **told), as_json=as_json)


@keks.command()
def recover(
    *,
    kek: Alias,
    actor: Actor,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Bring a deleted KEK back."""
    told = _told(actor, purpose, note)
    _done(lambda core: core.keks.recover(kek, **told), as_json=as_json)


@keks.command("blast-radius")
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
        from streams.usehistory import IndexHistory

        async with monitored(index, monitor=monitor) as documents:
            history = None if documents is None else IndexHistory(documents)
            radius = await core.blast_radius(kek=kek, kek_version=version, history=history)
        return radius, await core.keks.dependence(kek, version, copies=declared)

    with index_answers(index), core_answers():
        radius, found = ask(read)
    print_radius(radius, as_json=as_json, more={"depends": not found.none, "dependence": str(found)})
    if not as_json:
        console.print(f"By all signed records: {found}.", markup=False, soft_wrap=True)


def _told(actor: str, purpose: str, note: str | None) -> Any:
    return {"actor": a_person(actor), "purpose": purpose, "note": note}


def _giving(  # noqa: PLR0917 - what the command line says
    verb: str, kek: str, version: str | None, copies: Path | None, accept_loss: Path | None, approvals: list[Path]
) -> "Giving":
    """Read what allows an act; where a loss is to be accepted and not written down yet, write it and end."""
    from cryptocore.keks import Giving

    declared, signed = copies_of(copies), approving.read(approvals)
    if accept_loss is not None and not accept_loss.exists():
        statement = ask(lambda core: core.keks.loss_statement(kek, verb, version, declared))
        if statement is not None:
            approving.write_new(accept_loss, statement)
            _to_approve(accept_loss)
            raise typer.Exit(NOT_ALL_WELL)
        accept_loss = None  # nothing is lost
    return Giving(declared, None if accept_loss is None else approving.content_of(accept_loss), signed)


def _to_approve(file: Path) -> None:
    said = (
        f"{file}: two people approve it with keytrail keys approve --statement {file} --signer-file KEY --out FILE; "
        "then repeat the command with both --approvals"
    )
    console.print(said, markup=False, soft_wrap=True)


def _done(work: "Callable[[CryptoCore], Coroutine[Any, Any, Kek]]", *, as_json: bool) -> None:
    with core_answers():
        found = act(work)
    _print(_shown(found), as_json=as_json)


def _shown(kek: "Kek") -> dict[str, Any]:
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
    versions += [
        {"version": version, "state": "not shown by the vault", "current": False, "key_versions": count}
        for version, count in kek.deks.items()
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


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for name in ("kek", "vault_key", "state", "for_new_keys", "deleted", "purge_due", "problem"):
        if found[name]:
            console.print(f"{name.replace('_', ' '):13} {cell(found[name])}", markup=False, soft_wrap=True)
    if found["versions"]:
        print_rows(_VERSION, found["versions"])


_VERSION = ("version", "state", "current", "created", "expires", "key versions")
