"""`keytrail vault-feed`: Key Vault logs from where Azure puts them into the topic vault-access."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from streams.commands.terminal import (
    SOME_REJECTED,
    UNREACHABLE,
    fail,
    feed_settings,
    needs,
    plainly,
    settings,
)

vault_feed = typer.Typer(
    help="Bring Key Vault logs into the log; configured by KEYTRAIL_FEED_* (docs/vault-feeds.md).", no_args_is_help=True
)


@vault_feed.command()
def eventhub() -> None:
    """Read an Event Hub through its Kafka surface until told to stop."""
    needs("aiokafka", "azure.identity", extra="feeds")
    chosen, feed = settings(), feed_settings()
    from streams.feeds.eventhub import run_eventhub

    with plainly(kafka=chosen.kafka_bootstrap):
        hub = feed.hub()[0]
    with plainly(kafka=f"{hub} (the hub) or {chosen.kafka_bootstrap} (our log)"), _azure():
        refused = run_eventhub(chosen, feed)
    raise typer.Exit(_code(refused))


@vault_feed.command("log-analytics")
def log_analytics() -> None:
    """Ask a Log Analytics workspace for new rows until told to stop."""
    needs("aiokafka", "azure.identity", "azure.monitor.query", extra="feeds")
    chosen, feed = settings(), feed_settings()
    from streams.feeds.log_analytics import run_log_analytics

    with plainly(kafka=chosen.kafka_bootstrap), _azure():
        refused = run_log_analytics(chosen, feed)
    raise typer.Exit(_code(refused))


@vault_feed.command()
def files(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders of log exports.")],
    watch: Annotated[bool, typer.Option("--watch", help="Go on looking for new lines and files.")] = False,  # noqa: FBT002 - a switch
) -> None:
    """Read files and folders of log exports, once or for as long as they grow."""
    needs("aiokafka", extra="feeds")
    for path in paths:
        if not path.exists():
            raise fail(f"no such file or folder: {path}")
    chosen, feed = settings(), feed_settings()
    from streams.feeds.files import run_files

    with plainly(kafka=chosen.kafka_bootstrap):
        refused = run_files(chosen, feed, paths, watch=watch)
    raise typer.Exit(_code(refused))


@contextmanager
def _azure() -> Iterator[None]:
    from streams.feeds.answers import refusal

    try:
        yield
    except Exception as problem:
        said = refusal(problem)
        if said is None:
            raise
        raise fail(f"Azure refused: {said}", UNREACHABLE) from None


def _code(refused: int) -> int:
    return SOME_REJECTED if refused else 0
