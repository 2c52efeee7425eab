"""`keytrail keys rotation`: old versions on their way out, what each waits for, and its last steps by hand."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from streams.commands.owners import print_rows
from streams.commands.terminal import console, print_json

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore
    from cryptocore.life.rotations import Rotation

rotation = typer.Typer(help="Rotations that are open, and their steps.", no_args_is_help=True)

Ident = Annotated[str, typer.Argument(help="The rotation: 32 hex digits.", metavar="ID")]


@rotation.command("list")
def list_(
    *,
    late: Annotated[bool, typer.Option("--late", help="Those past their date only.")] = False,
    as_json: Json = False,
) -> None:
    """List open rotations, those due first in front."""

    async def read(core: "CryptoCore") -> "list[Rotation]":
        now_ms = await core.incidents().database_ms()
        return await core.rotations(due_before_ms=now_ms if late else None)

    with core_answers():
        found = [_shown(one) for one in ask(read)]
    if as_json:
        print_json(found)
    else:
        print_rows(_HEADS, found)


_HEADS = ("id", "owner", "key", "version", "next version", "waits for", "rows left", "due at")


@rotation.command()
def report(
    *,
    ident: Ident,
    rows_left: Annotated[int, typer.Option(min=0, help="Rows that are still under the old version.")],
    actor: Actor,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Say, as the owner of the rows, how many are left; nobody else can know."""
    a_person(actor)
    with core_answers():
        found = act(lambda core: core.report_reencrypted(ident, rows_left, actor=actor, purpose=purpose))
    _print(found, as_json=as_json)


@rotation.command()
def retire(
    *,
    ident: Ident,
    actor: Actor,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Archive the old version, once no rows are left: it decrypts no more."""
    a_person(actor)
    with core_answers():
        confirm("Archive the old version, for good?", yes=yes)
        found = act(lambda core: core.retire(ident, actor=actor, purpose=purpose, note=note))
    _print(found, as_json=as_json)


def _shown(one: "Rotation") -> dict[str, Any]:
    from cryptocore.care.compromise import owner_name
    from cryptocore.clock import rfc3339_ms

    return {
        "id": one.id,
        "owner": owner_name(one.owner),
        "key": one.key_id,
        "version": one.version,
        "next_key": one.next_key_id,
        "next_version": one.next_version,
        "reason": one.reason,
        "waits_for": one.step,
        "rows_left": one.rows_left,
        "due_at": rfc3339_ms(one.due_ms),
    }


def _print(found: "Rotation", *, as_json: bool) -> None:
    shown = _shown(found)
    if as_json:
        print_json(shown)
    else:
        said = f"rotation {found.id} of key {found.key_id} version {found.version} waits for: {found.step}"
        console.print(said, markup=False, soft_wrap=True)
