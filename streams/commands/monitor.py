"""`keytrail worker` and `keytrail topics`: the monitor on Kafka and Elasticsearch."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from streams.commands.terminal import NOT_ALL_WELL, complaint, fail, needs, plainly, settings

if TYPE_CHECKING:
    from streams.settings import Settings

topics = typer.Typer(help="The Kafka topics.", no_args_is_help=True)


def worker() -> None:
    """Run a monitor worker on Kafka and Elasticsearch; configured by KEYTRAIL_* (docs/operations.md)."""
    needs("faust", "elasticsearch", extra="monitor")
    chosen = settings()
    from streams import worker as running

    with plainly(kafka=chosen.kafka_bootstrap), _reviewed_files(chosen):
        running.run(chosen)


@contextmanager
def _reviewed_files(chosen: "Settings") -> Iterator[None]:
    """Name the file that cannot be used: there are three, and each says only which field is wrong."""
    from cryptocore.errors import RegistryInvalid
    from streams.allowed import AllowedInvalid
    from streams.feeds.vaults import VaultsInvalid

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
    from streams import topics as kafka_topics

    with plainly(kafka=chosen.kafka_bootstrap):
        differences = asyncio.run(kafka_topics.ensure(chosen))
    for difference in differences:
        complaint.print(str(difference), markup=False, soft_wrap=True)
    raise typer.Exit(NOT_ALL_WELL if differences else 0)
