"""`keytrail keks`: the configured KEKs, whose life is in a vault, and what depends on them."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands import approving, keks_look
from streams.commands.approving import Approvals
from streams.commands.core import (
    ADMINISTRATION,
    Actor,
    Json,
    Note,
    Purpose,
    Yes,
    act,
    ask,
    confirm,
    core_answers,
    told,
)
from streams.commands.keks_look import Alias, print_kek, shown_kek
from streams.commands.keys_destroy import CopiesFile, copies_of, tell_unbelieved
from streams.commands.terminal import NOT_ALL_WELL, console, fail

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore
    from cryptocore.keks.ends import KekEnds
    from cryptocore.keks.life import Giving
    from cryptocore.keks.looking import Kek

keks = typer.Typer(help="KEKs, in their vault (docs/keys.md).", no_args_is_help=True)
keks.command("list")(keks_look.list_)
keks.command("show")(keks_look.show)
keks.command("rewrap-status")(keks_look.rewrap_status)
keks.command("blast-radius")(keks_look.blast_radius)

Version = Annotated[str, typer.Option(help="The version, as the vault names it.")]
Loss = Annotated[
    Path | None,
    typer.Option(
        "--accept-loss",
        help="Go on though data is lost: FILE lists whose. It is written for two people to approve; then repeat.",
    ),
]


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
    by = told(actor, purpose, note)
    _done(lambda core: core.keks.create(kek, hsm=hsm, **by), as_json=as_json)


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
    by = told(actor, purpose, note)
    _done(lambda core: core.keks.rotate(kek, **by), as_json=as_json)


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
    by = told(actor, purpose, note)
    _done(lambda core: core.keks.enable(kek, version, **by), as_json=as_json)


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
    by = told(actor, purpose, note)
    with core_answers():
        giving = _giving("disable", kek, version, copies, accept_loss, approvals)
        if giving.accept_loss is not None:
            confirm(f"Disable version {version} of {kek} although data under it can then not be read?", yes=yes)
    _done(lambda core: core.keks.disable(kek, version, giving=giving, **by), as_json=as_json)


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
    by = told(actor, purpose, note)
    with core_answers():
        giving = _giving("delete", kek, None, copies, accept_loss, approvals)
        confirm(f"Delete the KEK {kek} with all its versions?", yes=yes)
    _done(lambda core: core.keks.delete(kek, giving=giving, **by), as_json=as_json)


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
    """Purge a deleted KEK for good, as two people approved (--statement FILE first, then --approvals).

    When it is done and could not be stated, call it again with the same approvals.
    """
    by = told(actor, purpose, note)
    with core_answers():
        if statement is not None:
            approving.write_new(statement, ask(lambda core: core.keks.purge_statement(kek)))
            _to_approve(statement)
            return
        if not approvals:
            raise fail("two people approve a purge: write what they approve with --statement FILE")
        giving = _giving("purge", kek, None, copies, accept_loss, approvals)
        confirm(f"Purge the KEK {kek}? Nothing brings it back.", yes=yes)

        async def work(core: "CryptoCore") -> "tuple[Kek, KekEnds]":
            return await core.keks.purge(kek, giving=giving, **by), await core.keks.ends()

        found, ends = act(work)
    tell_unbelieved(ends)
    print_kek(shown_kek(found, ends), as_json=as_json)


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
    by = told(actor, purpose, note)
    _done(lambda core: core.keks.recover(kek, **by), as_json=as_json)


def _giving(  # noqa: PLR0917 - what the command line says
    verb: str, kek: str, version: str | None, copies: Path | None, accept_loss: Path | None, approvals: list[Path]
) -> "Giving":
    """Read what allows an act; where a loss is to be accepted and not written down yet, write it and end."""
    from cryptocore.keks.life import Giving

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
    print_kek(shown_kek(found), as_json=as_json)
