"""What a campaign breaks: three servers of its own, the vault, and a deployment of the monitor over them."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from cryptocore.clock import SystemClock
from cryptocore.development import make_registry
from cryptocore.registry import Registry
from cryptocore.store.migration import migrate
from streams.log import topics
from streams.settings import Settings
from tests.faults.loopback import ElasticProxy, Webhook
from tests.faults.service import SERVICE, Job
from tests.faults.vaultside import VaultSide
from tests.servers.elasticsearch import ElasticsearchServer
from tests.servers.kafka import KafkaServer
from tests.servers.machine import free_port
from tests.servers.postgres import PostgresServer

PARTITIONS = 3
SESSION_S = 6
STOP_S = 10
SECRET = "s" * 32


@dataclass(frozen=True, slots=True)
class Servers:
    """Servers that a campaign may kill."""

    kafka: KafkaServer
    elasticsearch: ElasticsearchServer
    postgres: PostgresServer


@contextmanager
def servers() -> Iterator[Servers]:
    """Start all three; a machine without one of them says so."""
    with ExitStack() as stack:
        started = Servers(KafkaServer(), ElasticsearchServer(), PostgresServer())
        for server in (started.kafka, started.elasticsearch, started.postgres):
            stack.enter_context(server)
        yield started


@dataclass(slots=True, kw_only=True)
class Deployment:
    """Everything of one campaign but its processes."""

    folder: Path
    servers: Servers
    settings: Settings
    registry: Registry
    vault: VaultSide
    proxy: ElasticProxy
    webhook: Webhook
    draw: random.Random

    def environment(self) -> dict[str, str]:
        names = (
            "kafka_bootstrap kafka_session_timeout_s topic_prefix partitions app_id elasticsearch_url index_prefix "
            "index_replicas sources_file stop_s web_port webhook_url"
        )
        own = {f"KEYTRAIL_{name.upper()}": str(getattr(self.settings, name)) for name in names.split()}
        return own | {
            "KEYTRAIL_WEBHOOK_SECRET": SECRET,
            "KEYTRAIL_FEED_STATE_DIR": str(self.folder / "feed"),
            "KEYTRAIL_FEED_FILES_POLL_S": "0.5",
        }

    def job(self, name: str, *, family: str | None = None, seconds: float = 3600, per_s: float = 50) -> Job:
        return Job(
            name=name,
            family=family or name,
            kafka=self.settings.kafka_bootstrap,
            topic=self.settings.topic("key-events"),
            partitions=PARTITIONS,
            folder=str(self.folder),
            store_url=self.servers.postgres.address,
            vault_port=self.vault.port,
            token=self.vault.token(),
            per_s=per_s,
            seconds=seconds,
        )


@asynccontextmanager
async def deployment(own: Servers, folder: Path, draw: random.Random) -> AsyncIterator[Deployment]:
    vault = VaultSide(folder, draw)
    proxy = ElasticProxy(free_port(), own.elasticsearch.address, draw)
    webhook = Webhook(free_port())
    made = f"{SERVICE}={vault.service.object_id}"
    make_registry(folder, [made], now_ms=SystemClock().now_us() // 1000 - 60_000, days=1)
    settings = _settings(own, folder, proxy, webhook)
    assert await topics.ensure(settings) == []
    await asyncio.to_thread(migrate, own.postgres.address)
    await vault.start()
    await proxy.start()
    await webhook.start()
    carrying = asyncio.create_task(vault.carry())
    try:
        yield Deployment(
            folder=folder,
            servers=own,
            settings=settings,
            registry=Registry.load(settings.sources_file),
            vault=vault,
            proxy=proxy,
            webhook=webhook,
            draw=draw,
        )
    finally:
        carrying.cancel()
        await asyncio.gather(carrying, return_exceptions=True)
        await webhook.stop()
        await proxy.close()
        await vault.stop()


def _settings(own: Servers, folder: Path, proxy: ElasticProxy, webhook: Webhook) -> Settings:
    unique = uuid4().hex[:8]
    return Settings(
        kafka_bootstrap=own.kafka.address,
        kafka_session_timeout_s=SESSION_S,
        topic_prefix=f"f{unique}.",
        partitions=PARTITIONS,
        app_id=f"faults-{unique}",
        elasticsearch_url=proxy.url,  # type: ignore[arg-type]
        index_prefix=f"faults-{unique}",
        index_replicas=0,
        sources_file=folder / "sources.json",
        stop_s=STOP_S,
        web_port=0,
        webhook_url=webhook.url,  # type: ignore[arg-type]
        webhook_secret=SECRET,  # type: ignore[arg-type]
    )
