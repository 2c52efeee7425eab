"""`keytrail vault`: who used a KEK and how much of it was seen, out of the index."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from alerts.thresholds import DAY_MS
from cryptocore.clock import rfc3339_ms
from streams.commands.indexed import IndexFile, index_answers, opened
from streams.commands.terminal import (
    complaint,
    console,
    fail,
    needs,
    now_ms,
    print_json,
    print_table,
    said_ms,
    settings,
)

if TYPE_CHECKING:
    from streams.feeds.vaults import VaultDeclarations
    from streams.presence.coverage import Coverage

vault = typer.Typer(help="What the vaults' logs say, explained by our events.", no_args_is_help=True)

LONGEST_MS: Final = 31 * DAY_MS
"""Coverage is counted hour by hour: two questions to the index for each."""
Since = Annotated[str, typer.Option(help="A date, a time (2026-11-20T08:00:00Z), or how long ago: 90m, 36h, 7d.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EveryHour = Annotated[bool, typer.Option("--hours", help="List every hour that somebody has something to say of.")]
_WIDER: Final = "Look further back with --since 7d, or with a date."
_WORSE: Final = ("silent", "seen", "partly", "blind")
_COLUMNS: Final = ("time", "operation", "outcome", "status", "reason", "principal", "actor", "purpose", "tenant")


@vault.command()
def uses(  # noqa: PLR0917 - options, each by its name
    key: Annotated[str, typer.Option("--key", "-k", help="A KEK: VAULT/NAME, or its name alone.")] = "",
    principal: Annotated[str, typer.Option(help="The vault's caller, by its id or as alerts name it.")] = "",
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
    with index_answers(index):
        found = asyncio.run(_uses(index, where, principal, _since_ms(since), limit + 1))
    shown = found[:limit]
    if as_json:
        print_json([{name: value for name, value in use.items() if name != "@timestamp"} for use in shown])
    elif shown:
        print_table(("KEK", *_COLUMNS), map(_row, shown))
        console.print("1 use" if len(shown) == 1 else f"{len(shown):,} uses")
    else:
        console.print(f"No such use of a KEK since {_said(_since_ms(since))}. {_WIDER}", soft_wrap=True)
    if len(found) > limit:
        complaint.print(f"keytrail: these are the oldest {limit:,} of more; narrow them down, or raise --limit")


async def _uses(
    file: Path | None, where: dict[str, str | int | bool], principal: str, since_ms: int, limit: int
) -> list[dict[str, Any]]:
    """The oldest uses. Alerts and lists call a principal by its label, so whoever copies that finds it, too."""
    from streams.index.port import DocKind

    named = {"principal_id": principal.lower()}, {"principal_label": principal}
    found: dict[str, dict[str, Any]] = {}
    async with opened(file) as documents:
        for caller in named if principal else ({},):
            some = await documents.find(DocKind.KEK_USE, where=where | caller, since_ms=since_ms, limit=limit)
            found |= {use["id"]: use for use in some}
    return sorted(found.values(), key=lambda use: (use["@timestamp"], use["id"]))[:limit]


def _row(use: dict[str, Any]) -> tuple[str, ...]:
    told = use | {"principal": use.get("principal_label") or use.get("principal_id")}
    return f"{use['vault']}/{use['name']}", *(str(told.get(name) or "") for name in _COLUMNS)


@vault.command()
def coverage(
    since: Since = "24h",
    vaults: Annotated[
        Path | None,
        typer.Option(help="vaults.toml; without it, what KEYTRAIL_VAULTS_FILE names, if --index is not given."),
    ] = None,
    every_hour: EveryHour = False,  # noqa: FBT002 - a switch
    index: IndexFile = None,
    as_json: Json = False,  # noqa: FBT002 - a switch
) -> None:
    """Count, per vault, what was matched, unaccounted and unlogged; then list the hours to look at.

    Those are the hours in which the vault's log was blind or misses calls, or in which a use is unaccounted.
    """
    from streams.presence import coverage as covering

    since_ms, until_ms = _since_ms(since), now_ms()
    if until_ms - since_ms > LONGEST_MS:
        raise fail(f"--since {since}: {LONGEST_MS // DAY_MS} days at most")
    declared = _declared(vaults, index)

    async def read() -> "list[Coverage]":
        async with opened(index) as documents:
            return await covering.read(documents, since_ms=since_ms, until_ms=until_ms, declared=declared)

    with index_answers(index):
        found = asyncio.run(read())
    if as_json:
        print_json([one.shown() for one in found])
    elif found:
        _print_coverage([one.shown() for one in found], every_hour=every_hour)
    else:
        said = f"No record of a vault and no use of a KEK since {_said(since_ms)}. {_WIDER}"
        console.print(said, soft_wrap=True)


def _declared(file: Path | None, index: Path | None) -> "VaultDeclarations | None":
    """Read the declaration that is named; a demo or a replay has none of its own."""
    from streams.feeds.vaults import VaultDeclarations, VaultsInvalid

    if file is None and index is None:
        needs("elasticsearch", "pydantic_settings", extra="monitor")
        file = settings().vaults_file
    try:
        return None if file is None else VaultDeclarations.load(file)
    except VaultsInvalid as problem:
        raise fail(f"{file}: {problem}") from None


def _print_coverage(found: list[dict[str, Any]], *, every_hour: bool) -> None:
    """One table of the vaults, the worst first, and one of the hours."""
    from streams.presence.coverage import STATUSES, Sight

    worst_first = sorted(found, key=lambda one: (-_WORSE.index(one["sight"]), -one["unaccounted"], one["vault"]))
    heads = tuple(status.replace("_", " ") for status in STATUSES)
    counted = ("records", "hours_blind", "hours_partly", "hours_silent")
    print_table(
        ("vault", "log", *(name.replace("_", " ") for name in counted), *heads),
        ((one["vault"], _vault_log(one), *_figures(one, (*counted, *STATUSES))) for one in worst_first),
    )
    bad = {Sight.BLIND, Sight.PARTLY}
    rows = [
        (one["vault"], hour["hour"][:13] + "Z", hour["sight"], *_figures(hour, ("records", *STATUSES)))
        for one in worst_first
        for hour in one["by_hour"]
        if hour["sight"] in bad
        or hour["unaccounted"]
        or (every_hour and (hour["sight"] != Sight.SILENT or any(hour[status] for status in STATUSES)))
    ]
    if rows:
        console.print("All hours with something to say:" if every_hour else "Hours to look at:")
        print_table(("vault", "hour", "log", "records", *heads), rows)
    else:
        console.print("No hour to look at: no log was blind or missed a call, and no use is unaccounted.")


def _vault_log(one: dict[str, Any]) -> str:
    """What the log of a vault was worth, and whether somebody declared it."""
    if one["declared"] is False:
        return f"{one['sight']}, not declared"
    return f"{one['sight']}, no record" if one["declared"] and not one["records"] else str(one["sight"])


def _figures(counted: dict[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{counted[name]:,}" for name in names)


def _said(ms: int) -> str:
    return rfc3339_ms(ms)[:16] + "Z"


def _since_ms(text: str) -> int:
    return said_ms(text, otherwise=f"--since {text}: give a date, a time such as 2026-11-20T08:00:00Z, or 90m, 36h, 7d")
