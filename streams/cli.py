"""The `keytrail` command: a composition root. Each command imports what it needs, so that the demo needs no Faust."""

import asyncio
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.baselines import baselines
from streams.commands.canary import canary
from streams.commands.doctor import doctor
from streams.commands.drain import drain
from streams.commands.feeds import vault_feed
from streams.commands.incidents import incidents
from streams.commands.indexed import IndexFile, index_answers, opened
from streams.commands.keks import keks
from streams.commands.keys import keys
from streams.commands.monitor import topics, worker
from streams.commands.reindex import reindex
from streams.commands.rejected import rejected
from streams.commands.sources import sources
from streams.commands.store import store
from streams.commands.terminal import NOT_ALL_WELL, SOME_REJECTED, console, fail, now_ms, writes_into
from streams.commands.threat import threat
from streams.commands.tokens import tokens
from streams.commands.vault import vault

if TYPE_CHECKING:
    from cryptocore.registry import Registry
    from reports.week import Week
    from streams.index.port import EventIndex
    from streams.joining.allowed import Allowed
    from streams.replaying.outfolder import OutFolder

app = typer.Typer(
    name="keytrail",
    help="Who used which encryption key, when, why, and whether that was all right.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
report = typer.Typer(help="Reports for auditors.", no_args_is_help=True)
schema = typer.Typer(help="Schemas of the formats.", no_args_is_help=True)
app.add_typer(topics, name="topics")
app.add_typer(report, name="report")
app.add_typer(sources, name="sources")
app.add_typer(rejected, name="rejected")
app.add_typer(schema, name="schema")
app.add_typer(vault_feed, name="vault-feed")
app.add_typer(vault, name="vault")
app.add_typer(baselines, name="baselines")
app.add_typer(store, name="store")
app.add_typer(keys, name="keys")
app.add_typer(keks, name="keks")
app.add_typer(tokens, name="tokens")
app.add_typer(threat, name="threat")
app.add_typer(incidents, name="incidents")
app.command()(worker)
app.command()(drain)
app.command()(canary)
app.command()(doctor)
app.command()(reindex)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        console.print(f"keytrail {version('keytrail')}")
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,  # noqa: FBT002 - a switch
) -> None:
    """Who used which encryption key, when, why, and whether that was all right."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo writes.")] = Path("demo-out"),
    seed: Annotated[int, typer.Option(help="The same seed tells the same story.")] = 47,
    events: Annotated[int, typer.Option(min=1, help="About how many key events the fleet leaves behind.")] = 60_000,
) -> None:
    """Live a simulated week of a company with one stolen identity. No account; nothing leaves this machine."""
    from streams.demo.run import Demo, next_steps
    from streams.replaying.outputs import tell

    with writes_into(out) as folder:
        summary = asyncio.run(Demo(folder, seed=seed, events=events, console=console).run())
    tell(summary, out, console)
    console.print(next_steps(out, sys.argv[0]), markup=False, soft_wrap=True)


@app.command()
def replay(
    out: Annotated[Path, typer.Option(help="Folder for the results; made if absent.")],
    vault_logs: Annotated[
        list[Path], typer.Option(help="Key Vault logs: files or folders, any export form. Repeatable.")
    ] = [],  # noqa: B006 - typer's way to say "none"
    batches: Annotated[list[Path], typer.Option(help="batches.ndjson of sealed batches. Repeatable.")] = [],  # noqa: B006
    sources_file: Annotated[
        Path | None, typer.Option("--sources", help="Registry of signers (sources.json); needed with --batches.")
    ] = None,
    allowed: Annotated[
        Path | None, typer.Option(help="allowed.toml: who else may use a KEK (docs/vault-feeds.md); with --batches.")
    ] = None,
) -> None:
    """Judge files: Key Vault logs alone, or together with the sealed batches of your services."""
    if not vault_logs and not batches:
        raise fail("nothing to read: give --vault-logs PATH, and --batches FILE with --sources FILE if you have them")
    if bool(batches) != (sources_file is not None):
        raise fail("--batches and --sources go together: the registry says whose signature counts")
    if allowed is not None and not batches:
        raise fail("--allowed needs --batches and --sources: without application events no use is judged")
    given = [*vault_logs, *batches, *filter(None, (sources_file, allowed))]
    for path in given:
        if not path.exists():
            raise fail(f"no such file or folder: {path}")
    for path in given[len(vault_logs) :]:
        if not path.is_file():
            raise fail(f"not a file: {path}")
    with writes_into(out, reads=given) as folder:
        rejected = asyncio.run(_replay(vault_logs, batches, sources_file, allowed, folder))
    raise typer.Exit(SOME_REJECTED if rejected else 0)


async def _replay(
    vault_logs: list[Path], batches: list[Path], sources_file: Path | None, allowed_file: Path | None, out: "OutFolder"
) -> int:
    """Read, judge, write; returns how many records were rejected."""
    from cryptocore.registry import Registry
    from reports import weekly
    from streams.index.embedded import EmbeddedIndex
    from streams.replaying import replay as replaying
    from streams.replaying.outputs import tell, tell_alerts, tell_uses

    registry = Registry(deployment=bytes(16), signers=()) if sources_file is None else _registry(sources_file)
    allowed = None if allowed_file is None else _allowed(allowed_file, registry)
    source = replaying.Input()
    replaying.read_vault_logs(vault_logs, source)
    replaying.read_batch_files(batches, source)
    if not source.arrivals and not source.rejected:
        raise fail(f"no log records found in {', '.join(map(str, [*vault_logs, *batches]))}")
    out.clear()
    replaying.keep(out, vault_logs, batches, sources_file, allowed_file)
    index = EmbeddedIndex(out.file("index.sqlite"), simulated=source.simulated)
    await index.ensure()
    try:
        results = await replaying.replay(source, registry, index, out, allowed=allowed)
        if source.arrivals:
            week = replaying.week_to_report(source, results.alerts)
            page = out.file("report.html")
            simulated = source.simulated
            await weekly.write(index, week=week, tz="UTC", out=page, simulated=simulated, prepared_ms=now_ms())
            tell_alerts(results.alerts, console)
            await tell_uses(index, console)
            console.print(f"Report of week {week}: {page}", markup=False, soft_wrap=True)
            _tell_weeks(replaying.other_weeks(source, week), out.path)
        else:
            console.print("Nothing could be read.", style="bold red")
    finally:
        await index.close()
    tell(results.summary, out.path, console)
    return results.summary.rejected


def _tell_weeks(weeks: list[str], out: Path) -> None:
    """Say what the report leaves out, and the command that gives it."""
    if not weeks:
        return
    console.print(
        f"The files hold other weeks, too: {', '.join(weeks)}. The report of one of them:\n"
        f"  keytrail report weekly --week {weeks[-1]} --index {out / 'index.sqlite'} --out {out}",
        markup=False,
        soft_wrap=True,
    )


def _allowed(path: Path, registry: "Registry") -> "Allowed":
    from streams.joining.allowed import Allowed, AllowedInvalid

    try:
        found = Allowed.load(path)
        found.check(registry)
    except AllowedInvalid as problem:
        raise fail(f"{path}: {problem}") from problem
    return found


def _registry(path: Path) -> "Registry":
    from cryptocore.errors import RegistryInvalid
    from cryptocore.registry import Registry

    try:
        return Registry.load(path)
    except RegistryInvalid as problem:
        raise fail(f"{path} is no registry of signers that can be used (sources.json): {problem}") from problem


@report.command("weekly")
def report_weekly(
    week: Annotated[str, typer.Option(help="ISO week, for example 2026-W47.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")],
    tz: Annotated[str, typer.Option(help="Time zone of the week's borders.")] = "UTC",
    index: IndexFile = None,
) -> None:
    """Write the auditor's weekly report as one HTML file."""
    with index_answers(index):
        console.print(str(asyncio.run(_weekly(week, tz, out, index))), markup=False, soft_wrap=True)


async def _weekly(week: str, tz: str, out: Path, file: Path | None) -> Path:
    from reports import weekly
    from reports.week import parse_week

    async with opened(file) as documents:
        simulated = bool(getattr(documents, "simulated", False))
        try:
            if not await _is_known(documents, parse_week(week, tz)):
                said = f"nothing is known of week {week}: no event, no vault record, no heartbeat; no report written"
                raise fail(said, NOT_ALL_WELL)
            return await weekly.write(documents, week=week, tz=tz, out=out, simulated=simulated, prepared_ms=now_ms())
        except ValueError as problem:
            raise fail(f"--week {week}, --tz {tz}: {problem}") from problem


async def _is_known(documents: "EventIndex", week: "Week") -> bool:
    from streams.index.port import DocKind

    kinds = (DocKind.EVENT, DocKind.CONTROL, DocKind.VAULT_ACCESS, DocKind.KEK_USE)
    return any([await documents.find(kind, limit=1, **week.span) for kind in kinds])


@schema.command("event")
def schema_event() -> None:
    """Print the JSON Schema of the lines of a sealed batch."""
    from cryptocore.events import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
