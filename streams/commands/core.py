"""The core that a command works with, as KEYTRAIL_CORE_* says; who acts; and how its errors read.

What a command does is in the database's outbox when it returns. Its events are sent from there at once where spool and
log answer; where they do not, a process of the same service sends them later, and the command says so.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from cryptocore.errors import CoreError, Denied, Failed, InvalidTransition
from streams.commands.terminal import NOT_ALL_WELL, UNREACHABLE, complaint, fail, needs

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore
    from cryptocore.reading import StoreReader

T = TypeVar("T")

RELAY_WITHIN_S: Final = 15.0

Actor = Annotated[str, typer.Option(help="Who acts: user:<id>, a person.")]
Purpose = Annotated[str, typer.Option(help="What for, as the event says it.")]
Note = Annotated[str | None, typer.Option(help="A short text for the trail.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
ADMINISTRATION: Final = "administration"


@contextmanager
def core_answers() -> Iterator[None]:
    """Turn what the core refuses or cannot do into a sentence and an exit code."""
    try:
        yield
    except (Denied, InvalidTransition) as problem:
        raise fail(str(problem), NOT_ALL_WELL) from None
    except Failed as problem:
        raise fail(str(problem), UNREACHABLE) from None
    except CoreError as problem:
        raise fail(str(problem)) from None


def look(work: "Callable[[StoreReader], Coroutine[Any, Any, T]]") -> T:
    """Read what the key store alone tells; no other setting is asked for, and nothing else opened."""
    return asyncio.run(_with_reader(work))


def ask(work: "Callable[[CryptoCore], Coroutine[Any, Any, T]]") -> T:
    """Let the core do what leaves no event; nothing but the key store is opened."""
    return asyncio.run(_with_core(work, relays=False))


def act(work: "Callable[[CryptoCore], Coroutine[Any, Any, T]]") -> T:
    """Let the core do something, then send its events if that is possible now."""
    return asyncio.run(_with_core(work, relays=True))


def a_person(actor: str) -> str:
    """Check that a person acts, so that the trail names somebody who can be asked."""
    if not actor.startswith("user:") or not actor.removeprefix("user:").strip():
        raise fail(f"--actor {actor}: a person acts here, for example user:lena")
    return actor


def told(actor: str, purpose: str, note: str | None, **more: Any) -> Any:
    """What an act of the core is told by a command: who, a person; what for; a note; and what else it takes."""
    return {"actor": a_person(actor), "purpose": purpose, "note": note, **more}


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what cannot be undone; without a terminal, --yes must be said."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise fail("this cannot be undone: say --yes, or run it in a terminal")
    typer.confirm(question, abort=True, err=True)


async def _with_reader(work: "Callable[[StoreReader], Coroutine[Any, Any, T]]") -> T:
    from cryptocore.reading import StoreReader

    reader = StoreReader.from_env()
    try:
        return await work(reader)
    finally:
        reader.close()


async def _with_core(work: "Callable[[CryptoCore], Coroutine[Any, Any, T]]", *, relays: bool) -> T:
    needs("azure.keyvault.keys", "aiokafka", extra="azure,monitor")
    from cryptocore.core import CryptoCore

    core = CryptoCore.from_env()
    try:
        result = await work(core)
        if relays:
            await _send(core)
        return result
    finally:
        await core.close()


async def _send(core: "CryptoCore") -> None:
    if not await core.parts.read(core.parts.store.outbox, core.parts.service, 1):
        return
    try:
        async with asyncio.timeout(RELAY_WITHIN_S):
            await core.open()
            await core.relay()
    except (CoreError, OSError, TimeoutError) as problem:
        why = "no answer in time" if isinstance(problem, TimeoutError) else str(problem)
        complaint.print(
            f"keytrail: done; its events wait in the outbox until a process of {core.parts.service} sends them ({why})",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
