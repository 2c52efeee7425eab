"""`keytrail keys approve` and `keytrail keys destroy`: two people, a cooling-off, zeros, a certificate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryptocore.keys import KeyReason
from streams.commands import approving
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
from streams.commands.owners import print_rows
from streams.commands.terminal import SOME_REJECTED, complaint, console, fail, now_ms, print_json

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore
    from cryptocore.keks.ends import KekEnds
    from cryptocore.life.copies import Copies
    from cryptocore.life.destruction import Destruction, Disbelieved

destroy = typer.Typer(help="Destroy key versions: request, restore, finish, certificate.", no_args_is_help=True)

Ident = Annotated[str, typer.Argument(help="The destruction: 32 hex digits, as `request` gave it.", metavar="ID")]
CopiesFile = Annotated[
    Path | None,
    typer.Option("--copies", envvar="KEYTRAIL_COPIES_FILE", help="copies.toml: the declared copies of the key store."),
]


@destroy.command()
def request(
    *,
    approvals: Approvals,
    actor: Actor,
    days: Annotated[int, typer.Option("--cooling-off", min=1, max=365, help="Days until it may be done.")] = 7,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Ask for the destruction of what two people approved; the cooling-off begins. One request, one certificate."""
    by = told(actor, purpose, note)
    signed = approving.read(approvals)
    with core_answers():
        found = act(lambda core: core.request_destruction(signed, cooling_off_days=days, **by))
    _print_one(found, as_json=as_json)


@destroy.command("list")
def list_(*, as_json: Json = False) -> None:
    """List destructions that are neither called off nor certified, those due first in front."""
    with core_answers():
        found, bad = ask(_both)
    shown = [_shown(one) for one in found]
    if as_json:
        print_json(shown)
    else:
        print_rows(_HEADS, shown)
    if bad:
        raise fail("\n".join(f"{one.id}: {one.problem}" for one in bad), SOME_REJECTED)


async def _both(core: "CryptoCore") -> "tuple[list[Destruction], list[Disbelieved]]":
    return await core.destructions(), await core.disbelieved_destructions()


_HEADS = ("id", "keys", "requested", "due", "step")


@destroy.command()
def restore(
    *,
    ident: Ident,
    actor: Actor,
    note: Note = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Call a destruction off, as long as nothing is overwritten."""
    by = told(actor, purpose, note)
    with core_answers():
        found = act(lambda core: core.restore(ident, **by))
    _print_one(found, as_json=as_json)


@destroy.command()
def finish(
    *,
    ident: Ident,
    actor: Actor,
    reason: Annotated[KeyReason, typer.Option(help="As records and events say it.")] = KeyReason.OPERATOR,
    purpose: Purpose = ADMINISTRATION,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Overwrite the wrapped DEKs of a destruction that has cooled off. Nothing brings them back."""
    by = told(actor, purpose, None)
    with core_answers():
        if not yes:
            waiting = [one for one in ask(lambda core: core.destructions()) if one.id == ident.lower()]
            keys = ", ".join(f"{item.key_id}/{item.version}" for one in waiting for item in one.request.items)
            confirm(f"Overwrite {keys or 'what is left of it'}, for good?", yes=yes)
        found = act(lambda core: core.destroy(ident, reason=reason, **by))
    _print_one(found, as_json=as_json)


@destroy.command()
def certificate(
    *,
    ident: Ident,
    out: Annotated[Path, typer.Option(help="A new file for the certificate.")],
    copies: CopiesFile = None,
    purged: Annotated[
        list[str],
        typer.Option(
            help="When a KEK version was purged elsewhere than by `keks purge`: ALIAS/VERSION=TIME. Repeatable."
        ),
    ] = [],  # noqa: B006 - typer's way to say "none"
    as_json: Json = False,
) -> None:
    """Issue the certificate of a destruction, a minute after it; again when more is known."""
    from cryptocore.life.destruction import read_certificate

    declared, when = copies_of(copies), dict(map(_purge, purged))
    if out.exists():
        raise fail(f"{out} is there already; nothing was written")

    async def work(core: "CryptoCore") -> "tuple[bytes, Any, KekEnds]":
        found = await core.certify_destruction(ident, copies=declared, kek_purges=when)
        assert found.certificate is not None
        return found.certificate, read_certificate(found.certificate, core.parts.registry), await core.keks.ends()

    with core_answers():
        text, read, ends = ask(work)
    tell_unbelieved(ends)
    approving.write_new(out, text)
    shown = {
        "file": str(out),
        "keys": [f"{item.key_id}/{item.version}" for item in read.items],
        "purged": {f"{kek.alias}/{kek.version}": kek.purged_at for item in read.items for kek in item.keks},
        "overwritten_at": read.overwritten_at,
        "unrecoverable_after": read.unrecoverable_after,
    }
    if as_json:
        print_json(shown)
        return
    console.print(f"{out}: certificate of {', '.join(shown['keys'])}", markup=False, soft_wrap=True)
    for kek, purged_at in shown["purged"].items():
        ended = f"gone by {purged_at}" if purged_at else "not known to be purged"
        console.print(f"{kek} {ended}", markup=False, soft_wrap=True)
    console.print(f"overwritten          {read.overwritten_at}", markup=False)
    console.print(f"unrecoverable after  {read.unrecoverable_after}", markup=False)


def copies_of(file: Path | None) -> "Copies":
    """Read the declared copies, or end with what is wrong; none are declared where no file is named."""
    from cryptocore.life.copies import UNDECLARED, Copies, CopiesInvalid

    if file is None:
        return UNDECLARED
    try:
        return Copies.load(file)
    except CopiesInvalid as problem:
        raise fail(str(problem) if problem.field == "file" else f"{file}: {problem}") from None


def tell_unbelieved(ends: "KekEnds") -> None:
    """Name the KEKs of whose end nothing is shown, since somebody else wrote of it."""
    for one in ends.unbelieved:
        said = (
            f"keytrail: what was seen of the KEK {one} does not count: somebody else wrote, changed or took away some"
        )
        complaint.print(said, style="red", markup=False, soft_wrap=True)


def _purge(text: str) -> tuple[tuple[str, str], int]:
    from streams.commands.moments import moment_ms

    kek, _, when = text.partition("=")
    alias, _, version = kek.rpartition("/")
    try:
        return (alias, version), moment_ms(when, now_ms=now_ms())
    except ValueError:
        raise fail(f"--purged {text}: not ALIAS/VERSION=TIME") from None


def _shown(one: "Destruction") -> dict[str, Any]:
    from cryptocore.clock import rfc3339_ms

    return {
        "id": one.id,
        "keys": [f"{item.key_id}/{item.version}" for item in one.request.items],
        "requested": one.request.requested_at,
        "due": rfc3339_ms(one.due_ms),
        "step": _step(one),
        "restored_at": None if one.restored_ms is None else rfc3339_ms(one.restored_ms),
        "overwritten_at": None if one.overwritten_ms is None else rfc3339_ms(one.overwritten_ms),
    }


def _step(one: "Destruction") -> str:
    if one.restored_ms is not None:
        return "called off"
    if one.overwritten_ms is not None:
        return "certified" if one.certificate is not None else "overwritten, not certified"
    return "begun: call finish again" if one.begun_ms is not None else "cooling off, then finish"


def _print_one(found: "Destruction", *, as_json: bool) -> None:
    shown = _shown(found)
    if as_json:
        print_json(shown)
        return
    for name in ("id", "keys", "requested", "due", "step"):
        value = ", ".join(shown[name]) if isinstance(shown[name], list) else shown[name]
        console.print(f"{name:10} {value}", markup=False, soft_wrap=True)
