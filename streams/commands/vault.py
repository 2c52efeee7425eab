"""`keytrail vault`: who used a KEK and how much of it was seen, out of the index."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from alerts.thresholds import DAY_MS
from streams.commands.indexed import IndexFile, index_answers, opened
from streams.commands.moments import moment_ms
from streams.commands.terminal import complaint, console, fail, now_ms, print_json, print_table

if TYPE_CHECKING:
    from streams.coverage import Coverage

vault = typer.Typer(help="What the vaults' logs say, explained by our events.", no_args_is_help=True)

LONGEST_MS: Final = 31 * DAY_MS
"""Coverage is counted hour by hour: two questions to the index for each."""
Since = Annotated[str, typer.Option(help="A date, a time (2026-11-20T08:00:00Z), or how long ago: 90m, 36h, 7d.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_COLUMNS: Final = ("time", "operation", "outcome", "status", "reason", "principal", "actor", "purpose", "tenant")


@vault.command()
def uses(  # noqa: PLR0917 - options, each by its name
    key: Annotated[str, typer.Option(help="A KEK: VAULT/NAME, or its name alone.")] = "",
    principal: Annotated[str, typer.Option(help="The vault's caller, by its id.")] = "",
    since: Since = "24h",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most, the oldest first.")] = 1_000,
    index: IndexFile = None,
    as_json: Json = False,  # noqa: FBT002 - a switch
) -> None:
    """List uses of KEKs, each with its explanation or with the reason why it has none."""
    where: dict[str, str | int | bool] = {}
    if key:
        vault_name, _, name = key.lower().rpartition("/")
        where |= {"name": name} | ({"vault": vault_name} if vault_name else {})
    if principal:
        where["principal_id"] = principal.lower()
    with index_answers(index):
        found = asyncio.run(_uses(index, where, _since_ms(since), limit + 1))
    if as_json:
        print_json([{name: value for name, value in use.items() if name != "@timestamp"} for use in found[:limit]])
    else:
        print_table(("key", *_COLUMNS), (_row(use) for use in found[:limit]))
        console.print(f"{len(found[:limit]):,} uses")
    if len(found) > limit:
        complaint.print(f"keytrail: there are more than {limit:,}; narrow them down, or raise --limit")


async def _uses(file: Path | None, where: dict[str, str | int | bool], since_ms: int, limit: int) -> list[Any]:
    from streams.index.port import DocKind

    async with opened(file) as documents:
        return await documents.find(DocKind.KEK_USE, where=where, since_ms=since_ms, limit=limit)


def _row(use: dict[str, Any]) -> tuple[str, ...]:
    told = use | {"principal": use.get("principal_label") or use.get("principal_id")}
    return f"{use['vault']}/{use['name']}", *(str(told.get(name) or "") for name in _COLUMNS)


@vault.command()
def coverage(
    since: Since = "24h",
    index: IndexFile = None,
    as_json: Json = False,  # noqa: FBT002 - a switch
) -> None:
    """Count, per vault and hour, what was matched, unaccounted and unlogged, and where the vault's log was blind."""
    from streams import coverage as covering

    since_ms, until_ms = _since_ms(since), now_ms()
    if until_ms - since_ms > LONGEST_MS:
        raise fail(f"--since {since}: {LONGEST_MS // DAY_MS} days at most")

    async def read() -> "list[Coverage]":
        async with opened(index) as documents:
            return await covering.read(documents, since_ms=since_ms, until_ms=until_ms)

    with index_answers(index):
        found = asyncio.run(read())
    if as_json:
        print_json([one.shown() for one in found])
    else:
        _print_coverage([one.shown() for one in found])


def _print_coverage(found: list[dict[str, Any]]) -> None:
    """One table of all hours that somebody has something to say of, one of the vaults."""
    from streams.coverage import STATUSES

    heads = tuple(status.replace("_", " ") for status in STATUSES)
    print_table(
        ("vault", "hour", "log", "records", *heads),
        (
            (one["vault"], hour["hour"][:13] + "Z", hour["sight"], *_figures(hour, ("records", *STATUSES)))
            for one in found
            for hour in one["by_hour"]
            if hour["sight"] != "silent" or any(hour[status] for status in STATUSES)
        ),
    )
    sights = ("hours", "hours_blind", "hours_partly", "hours_silent")
    print_table(
        ("vault", *(name.replace("_", " ") for name in sights), *heads),
        ((one["vault"], *_figures(one, (*sights, *STATUSES))) for one in found),
    )


def _figures(counted: dict[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{counted[name]:,}" for name in names)


def _since_ms(text: str) -> int:
    try:
        return moment_ms(text, now_ms=now_ms())
    except ValueError:
        raise fail(f"--since {text}: give a date, a time such as 2026-11-20T08:00:00Z, or 90m, 36h, 7d") from None
