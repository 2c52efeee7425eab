"""`keytrail worker` and `keytrail topics`: the monitor on Kafka and Elasticsearch."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.terminal import (
    NOT_ALL_WELL,
    complaint,
    console,
    fail,
    needs,
    now_ms,
    plainly,
    settings,
)

if TYPE_CHECKING:
    from streams.settings import Settings

topics = typer.Typer(help="The Kafka topics.", no_args_is_help=True)


def worker() -> None:
    """Run a monitor worker on Kafka and Elasticsearch; configured by KEYTRAIL_* (docs/operations.md)."""
    needs("faust", "elasticsearch", extra="monitor")
    chosen = settings()
    from streams.running import worker as running

    with plainly(kafka=chosen.kafka_bootstrap), _reviewed_files(chosen):
        running.run(chosen)


@contextmanager
def _reviewed_files(chosen: "Settings") -> Iterator[None]:
    """Name the file that cannot be used: there are three, and each says only which field is wrong."""
    from cryptocore.errors import RegistryInvalid
    from streams.feeds.vaults import VaultsInvalid
    from streams.joining.allowed import AllowedInvalid

    try:
        yield
    except RegistryInvalid as problem:
        said = f"{chosen.sources_file} is no registry of signers that can be used (KEYTRAIL_SOURCES_FILE): {problem}"
        raise fail(said) from None
    except VaultsInvalid as problem:
        raise fail(f"{chosen.vaults_file} (KEYTRAIL_VAULTS_FILE): {problem}") from None
    except AllowedInvalid as problem:
        raise fail(f"{chosen.allowed_file} (KEYTRAIL_ALLOWED_FILE): {problem}") from None


@topics.command()
def ensure() -> None:
    """Create the topics that are missing, and say where existing ones differ from what keytrail needs."""
    needs("aiokafka", extra="monitor")
    chosen = settings()
    from streams.log import topics as kafka_topics

    with plainly(kafka=chosen.kafka_bootstrap):
        differences = asyncio.run(kafka_topics.ensure(chosen))
    for difference in differences:
        complaint.print(str(difference), markup=False, soft_wrap=True)
    if not differences:
        console.print(f"all {len(kafka_topics.wanted(chosen))} topics are there and as they must be")
    raise typer.Exit(NOT_ALL_WELL if differences else 0)


@topics.command()
def migrate(
    partitions: Annotated[int, typer.Option(min=2, help="Of the new generation; more than now.")],
    force: Annotated[  # noqa: FBT002 - a switch
        bool,
        typer.Option("--force", help="Give up chains that nobody closed, and documents that the index may lack."),
    ] = False,
) -> None:
    """Carry the state over into the next generation of the topics, with more partitions (docs/operations.md).

    Settings are those of the generation now in use. The old topics stay as they are.
    """
    needs("aiokafka", extra="monitor")
    chosen = settings()
    from streams.upkeep import migrate as migration

    def told(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    try:
        with plainly(kafka=chosen.kafka_bootstrap):
            done = asyncio.run(migration.migrate(chosen, partitions, now_ms=now_ms(), give_up=force, progress=told))
    except migration.Refused as refused:
        for one in refused.missing:
            complaint.print(one, markup=False, soft_wrap=True)
        raise typer.Exit(NOT_ALL_WELL) from None
    was = "is" if done is migration.Done.MIGRATED else "was already"
    told(f"The state {was} that of generation {chosen.generation + 1}. Start workers and feeds with")
    told(f"KEYTRAIL_GENERATION={chosen.generation + 1} KEYTRAIL_PARTITIONS={partitions}")
