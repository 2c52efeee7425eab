"""`keytrail worker` and `keytrail topics`: the monitor on Kafka and Elasticsearch."""

import asyncio

import typer

from streams.commands.terminal import NOT_ALL_WELL, complaint, needs, plainly, settings

topics = typer.Typer(help="The Kafka topics.", no_args_is_help=True)


def worker() -> None:
    """Run a monitor worker on Kafka and Elasticsearch; configured by KEYTRAIL_* (docs/operations.md)."""
    needs("faust", "elasticsearch", extra="monitor")
    chosen = settings()
    from streams import worker as running

    with plainly(kafka=chosen.kafka_bootstrap):
        running.run(chosen)


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
