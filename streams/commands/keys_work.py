"""`keytrail keys`, long work: rewrap, sign records anew, bring in DEKs that were before."""

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryptocore.keys import KeyReason
from streams.commands.core import ADMINISTRATION, Actor, Json, Purpose, a_person, act, core_answers
from streams.commands.indexed import index_answers
from streams.commands.monitored import IndexCopy, Monitor, monitored
from streams.commands.owners import Integration, Secret, Tenant, owner_of
from streams.commands.terminal import NOT_ALL_WELL, complaint, console, fail, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptocore.core import CryptoCore
    from cryptocore.keyinfo import KeyInfo
    from cryptocore.life.resign import Resigned
    from cryptocore.store.cursors import Progress

MAX_BARE = 4_096


def rewrap(
    *,
    kek: Annotated[str | None, typer.Argument(help="The KEK, by alias; else that of new keys.", metavar="KEK")] = None,
    actor: Actor,
    to: Annotated[str | None, typer.Option("--to", help="Another KEK to put the DEKs under, by alias.")] = None,
    per_second: Annotated[float | None, typer.Option(min=0.01, help="Begin at most so many a second.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="DEKs under way at once.")] = 16,
    reason: Annotated[KeyReason, typer.Option(help="As events say it.")] = KeyReason.SCHEDULED,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Put every DEK of a KEK under its newest version, or under another KEK. Stop and repeat it as you like."""
    a_person(actor)

    async def work(core: "CryptoCore") -> "Progress":
        for alias in filter(None, (kek, to)):
            core.keks.wrapper(alias)
        return await core.rewrap(
            kek,
            to_alias=to,
            reason=reason,
            concurrency=concurrency,
            per_second=per_second,
            progress=told,
            actor=actor,
            purpose=purpose,
        )

    with core_answers(), _bar(quiet=as_json) as told:
        found = act(work)
    if as_json:
        print_json({"done": found.done, "skipped": found.skipped, "failed": found.failed, "of": found.total})
    else:
        console.print(f"{found.done:,} rewrapped, {found.skipped:,} needed nothing, {found.failed:,} failed.")
    raise typer.Exit(NOT_ALL_WELL if found.failed else 0)


def resign(
    *,
    key: Annotated[str | None, typer.Argument(help="One key; else all.", metavar="KEY")] = None,
    actor: Actor,
    index: IndexCopy = None,
    monitor: Monitor = False,
    without_trail: Annotated[
        bool, typer.Option("--without-trail", help="Compare with nothing: what a thief wrote is signed, too.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; otherwise only look.")] = False,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Sign records anew that another signer signed, after comparing each with the trail. Looks first; then --apply."""
    a_person(actor)
    if (index is not None or monitor) == without_trail:
        raise fail("compare with what? --monitor or --index FILE; or --without-trail, if nobody monitored this store")

    async def work(core: "CryptoCore") -> "Resigned":
        from streams.index.trailhistory import IndexTrail

        async with monitored(index, monitor=monitor) as documents:
            trail = None if documents is None else IndexTrail(documents, core.parts.registry)
            return await core.resign(trail, key_id=key, apply=apply, actor=actor, purpose=purpose)

    with index_answers(index), core_answers():
        found = act(work)
    if as_json:
        print_json({"applied": apply, "signed": found.done, "left": found.left, "refused": found.refused})
    else:
        verb = "signed anew" if apply else "would be signed anew (--apply)"
        console.print(f"{len(found.done):,} {verb}, {found.left:,} left as they are, {len(found.refused):,} refused.")
        if found.refused:
            print_table(("key version", "refused, since"), [[name, why] for name, why in found.refused.items()])
    raise typer.Exit(NOT_ALL_WELL if found.refused else 0)


def import_(
    *,
    file: Annotated[Path, typer.Argument(help="The wrapped DEK: raw bytes, or base64 text.")],
    actor: Actor,
    wrapped_by: Annotated[str, typer.Option(help="The KEK that wrapped it: ALIAS/VERSION.")],
    tenant: Tenant = None,
    integration: Integration = None,
    secret: Secret = None,
    oaep_256: Annotated[
        bool, typer.Option("--oaep-256", help="It was wrapped by RSA-OAEP-256; Node's default is RSA-OAEP.")
    ] = False,
    kek: Annotated[str | None, typer.Option(help="The KEK to wrap it under, by alias; else that of new keys.")] = None,
    purpose: Purpose = ADMINISTRATION,
    as_json: Json = False,
) -> None:
    """Bring in a DEK that other software wrapped; `reencrypt` then moves its data. It encrypts nothing here."""
    a_person(actor)
    alias, _, version = wrapped_by.rpartition("/")
    if not alias or not version:
        raise fail(f"--wrapped-by {wrapped_by}: not ALIAS/VERSION")
    wrapped = _wrapped(file)

    async def work(core: "CryptoCore") -> "KeyInfo":
        from cryptocore.life.bare import BareWrap
        from cryptocore.life.importing import BareDek

        for name in filter(None, (alias, kek)):
            core.keks.wrapper(name)
        algorithm = BareWrap.RSA_OAEP_256 if oaep_256 else BareWrap.RSA_OAEP
        bare = BareDek(wrapped, alias, version, algorithm)
        owner = owner_of(tenant, integration, secret)
        return await core.import_key(bare, owner, kek_alias=kek, actor=actor, purpose=purpose)

    with core_answers():
        found = act(work)
    shown: dict[str, Any] = {"key": found.key_id, "version": found.version, "state": found.state}
    if as_json:
        print_json(shown)
    else:
        said = f"imported as key {found.key_id} version {found.version}; its rotation is open: reencrypt moves its data"
        console.print(said, markup=False, soft_wrap=True)


def _wrapped(file: Path) -> bytes:
    """Read a ciphertext; base64 when all of it is."""
    try:
        raw = file.read_bytes()[: MAX_BARE + 1]
    except OSError as problem:
        raise fail(f"{file}: {problem.strerror}") from None
    if not 1 <= len(raw) <= MAX_BARE:
        raise fail(f"{file}: not a wrapped DEK")
    try:
        return base64.b64decode(b"".join(raw.split()), validate=True)
    except (binascii.Error, ValueError):
        return raw


@contextmanager
def _bar(*, quiet: bool) -> "Iterator[Callable[[Progress], None]]":
    """Show how far work has come, on stderr and on a terminal only."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failed]}"), TimeRemainingColumn())
    with Progress(*columns, console=complaint, transient=True, disable=quiet or not complaint.is_terminal) as bar:
        task = bar.add_task("", total=None, failed="")

        def told(at: "Any") -> None:
            failed = f"{at.failed:,} failed" if at.failed else ""
            bar.update(task, total=at.total, completed=at.done + at.skipped + at.failed, failed=failed)

        yield told
