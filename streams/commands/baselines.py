"""`keytrail baselines`: what is usual for a principal, and what people decide about it."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import uuid4

import typer

from alerts.words import printable
from streams.commands.terminal import NOT_ALL_WELL, console, fail, needs, plainly, print_json, print_table, settings

if TYPE_CHECKING:
    from streams.conduct.baselines import Profile

MAX_CANDIDATES: Final = 20
"""Principals that are listed where several are meant."""

baselines = typer.Typer(help="What is usual for a principal (docs/detection.md).", no_args_is_help=True)

Principal = Annotated[str, typer.Argument(help="The whole id, as `show` prints it.")]
AnyForm = Annotated[str, typer.Argument(help="The id, its start, or its short form as in an alert.")]
Vault = Annotated[str, typer.Option(help="One vault only; without it, all.")]
Person = Annotated[str, typer.Option("--by", help="Who decides, for example user:lena.")]
Note = Annotated[str, typer.Option(help="Why.")]


@baselines.command()
def show(
    principal: AnyForm,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002 - a switch
) -> None:
    """Show what is usual for a principal, as the last commit of the who agent has it."""
    needs("aiokafka", extra="monitor")
    if not principal.strip():
        raise fail("the principal must not be empty")
    chosen = settings()
    from streams.conduct import baseline_commands
    from streams.log import baseline_log

    with plainly(kafka=chosen.kafka_bootstrap):
        found = asyncio.run(baseline_log.read(chosen, principal))
    if not found:
        raise fail(f"no baseline of {principal}: it was not seen, or not within the last 31 days", NOT_ALL_WELL)
    if len(found) > 1:
        raise fail(_several(principal, found))
    [(ident, profile)] = found.items()
    shown = baseline_commands.show(ident, profile)
    if as_json:
        print_json(shown)
    else:
        _print(shown)


@baselines.command()
def accept(principal: Principal, person: Person, vault: Vault = "", note: Note = "") -> None:
    """Make the highest level that was told usual: the next alert comes at twice of it."""
    _decide("accept", principal, vault=vault, person=person, note=note)


@baselines.command()
def reset(principal: Principal, person: Person, vault: Vault = "", note: Note = "") -> None:
    """Forget what is usual, and learn for seven days anew."""
    _decide("reset", principal, vault=vault, person=person, note=note)


def _decide(act: Literal["accept", "reset"], principal: str, *, vault: str, person: str, note: str) -> None:
    needs("aiokafka", extra="monitor")
    if not principal.strip() or not person.strip():
        raise fail("the principal and --by must not be empty")
    from streams.conduct import baseline_commands
    from streams.log import baseline_log

    if baseline_commands.is_shortened(principal):
        raise fail(f"{principal} is short for an id: a decision needs the whole one, which `baselines show` prints")
    chosen = settings()
    ident = str(uuid4())
    key, value = baseline_commands.command(act, principal, vault=vault, person=person, note=note, ident=ident)
    with plainly(kafka=chosen.kafka_bootstrap):
        asyncio.run(baseline_log.send(chosen, key, value))
    where = f"in {vault.lower()}" if vault else "in all vaults"
    console.print(f"{act} {principal} {where}: in the log as {ident}.", markup=False, soft_wrap=True)


def _several(said: str, found: "dict[str, Profile]") -> str:
    """Say who may be meant; names are written by strangers."""
    lines = [
        printable(f"{ident} ({profile.kind.value}, {profile.label or 'no name known'})")
        for ident, profile in sorted(found.items())[:MAX_CANDIDATES]
    ]
    more = [f"and {len(found) - len(lines)} more"] if len(found) > len(lines) else []
    return "\n  ".join((f"{said} fits {len(found)} principals; write more of the id:", *lines, *more))


def _print(shown: dict[str, Any]) -> None:
    named = f"{shown['principal']} ({shown['kind']}, {shown['label'] or 'no name known'})"
    console.print(printable(named), markup=False, soft_wrap=True)
    console.print(f"{shown['events']:,} events from {shown['since']} to {shown['last']}", soft_wrap=True)
    console.print(f"networks: {', '.join(shown['networks']) or 'none'}", markup=False, soft_wrap=True)
    if shown["evicted"]:
        console.print(f"{shown['evicted']:,} objects were forgotten for lack of room")
    numbers = ("windows", "usual", "accepted", "told_up_to")
    print_table(
        ("vault", "object", "class", "windows", "usual", "accepted", "told up to", "last"),
        (
            (one["vault"], one["object"], one["class"], *(f"{one[name]:,}" for name in numbers), one["last"])
            for one in shown["baselines"]
        ),
    )
    for done in shown["decisions"]:
        console.print(f"{done['at']} {done['act']} in {done['vault']} by {done['person']}", markup=False)
