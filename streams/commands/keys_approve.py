"""`keytrail keys approve`: one of two people signs, with a key of their own, what cannot be undone."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryptocore.keys import KeyAct, KeyState, permits
from streams.commands import approving
from streams.commands.core import Yes, ask, confirm, core_answers
from streams.commands.owners import counted
from streams.commands.terminal import console, fail, now_ms

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore
    from cryptocore.life.approvals import Action
    from cryptocore.registry import Registry
    from cryptocore.signing import Signer
    from cryptocore.store.key_store import KeyVersion


class OnKeys(StrEnum):
    """What one approves of key versions."""

    DESTROY = "destroy"
    RECOVERY_GRANT = "recovery-grant"


def approve(
    *,
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Key versions: KEY/VERSION, or KEY for all of one.", metavar="KEY[/VERSION]"),
    ] = None,
    statement: Annotated[
        Path | None, typer.Option(help="Instead: a statement that `keytrail keks` wrote (purge, accepted loss).")
    ] = None,
    signer: Annotated[Path, typer.Option("--signer-file", help="Your own private key (role approve), mode 0600.")],
    out: Annotated[Path, typer.Option(help="A new file for the approvals.")],
    action: Annotated[OnKeys, typer.Option(help="Of key versions.")] = OnKeys.DESTROY,
    hours: Annotated[int, typer.Option(min=1, max=24 * 30, help="How long it holds.")] = 24,
    yes: Yes = False,
) -> None:
    """Approve, as one of two people, what cannot be undone: you sign what you are shown. It does nothing by itself."""
    if bool(what) == (statement is not None):
        raise fail("say what: key versions, or --statement FILE")
    with core_answers():
        if statement is not None:
            lines = _of_statement(statement, signer, hours, yes=yes)
        else:
            lines = _of_keys(what or [], action, signer, hours, yes=yes)
    approving.write_new(out, lines)
    said = f"{out}: {counted(lines.splitlines(), 'approval')}, good for {hours} h and one use"
    console.print(said, markup=False, soft_wrap=True)


def _of_keys(what: list[str], action: OnKeys, signer_file: Path, hours: int, *, yes: bool) -> bytes:
    from cryptocore.care.compromise import owner_name
    from cryptocore.life.approvals import Action

    meant = {OnKeys.DESTROY: Action.DESTROY, OnKeys.RECOVERY_GRANT: Action.RECOVERY_GRANT}[action]

    async def read(core: "CryptoCore") -> "tuple[Registry, list[KeyVersion]]":
        found: list[KeyVersion] = []
        for name in what:
            key_id, number = _key_version(name)
            versions = await core.parts.read(core.parts.store.versions, bytes.fromhex(key_id))
            chosen = [one for one in versions if number in (None, one.number) and _leads(one, action)]
            if not chosen:
                raise fail(f"{name}: no version of it is there in a state that allows {action}")
            found += chosen
        return core.parts.registry, found

    registry, versions = ask(read)
    signer = _person(registry, signer_file)
    for one in versions:
        said = (
            f"{action}: key {one.key_id.hex()} version {one.number} of {owner_name(one.owner)}, {one.record.state}, "
            f"revision {one.record.revision}"
        )
        console.print(said, markup=False, soft_wrap=True)
    confirm(f"Sign {counted(versions, 'approval')}?", yes=yes)
    now = now_ms()
    return b"".join(approving.of_record(meant, one.signed, signer, now_ms=now, hours=hours) for one in versions)


def _leads(version: "KeyVersion", action: OnKeys) -> bool:
    if action is OnKeys.RECOVERY_GRANT:
        return version.record.state is KeyState.REVOKED
    return permits(version.record.state, version.newest, KeyAct.DESTROY)


def _of_statement(file: Path, signer_file: Path, hours: int, *, yes: bool) -> bytes:
    content = approving.content_of(file)
    action, deployment = _statement(file, content)

    async def read(core: "CryptoCore") -> "Registry":
        return core.parts.registry

    registry = ask(read)
    if deployment != registry.deployment.hex():
        raise fail(f"{file} is of another deployment")
    signer = _person(registry, signer_file)
    console.print(content.decode(), markup=False, soft_wrap=True)
    confirm(f"Sign this {action.name.lower().replace('_', ' ')}?", yes=yes)
    return approving.of_statement(action, content, signer, deployment=registry.deployment, now_ms=now_ms(), hours=hours)


def _statement(file: Path, content: bytes) -> "tuple[Action, str]":
    import msgspec

    from cryptocore.keks.dependence import LOSS, PURGE, statement_text
    from cryptocore.life.approvals import Action

    actions = {PURGE: Action.PURGE, LOSS: Action.ACCEPT_LOSS}
    try:
        document = msgspec.json.decode(content)
        if statement_text(document) == content:  # nothing in it that only bytes show
            return actions[document["type"]], str(document["deployment"])
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        pass
    raise fail(f"{file} is no statement that `keytrail keks` wrote")


def _person(registry: "Registry", file: Path) -> "Signer":
    """Read a person's key, which the registry lets approve."""
    from cryptocore.registry import Role
    from cryptocore.signing import Signer

    signer = Signer.from_file(file)
    entry = registry.get(signer.signer_id)
    if entry is None or not entry.usable(Role.APPROVE, now_ms()) or entry.person is None:
        raise fail(f"the registry lets {file} approve nothing: it needs an entry with role approve and a person")
    return signer


def _key_version(text: str) -> tuple[str, int | None]:
    from cryptocore.core_keys import raw_key_id

    key_id, _, number = text.partition("/")
    if number and not (number.isascii() and number.isdecimal()):
        raise fail(f"{text}: not KEY/VERSION")
    return raw_key_id(key_id).hex(), int(number) if number else None
