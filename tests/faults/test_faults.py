"""The campaign of `make faults`, short: then nothing is missing, nothing is there twice, and nothing was hidden."""

from pathlib import Path

import pytest

from tests.faults.campaign import AWAY, campaign
from tests.faults.deployment import Servers
from tests.faults.storm import FAULTS
from tests.servers.elasticsearch import ElasticsearchServer
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

SEED = 1
EVENTS = 5_000
LEFT_OUT = {  # half a minute each: `make faults` has them
    "worker: one more, one less",
    "Kafka: stands still until a spool is full",
    "Elasticsearch: SIGKILL, started again",
}


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_a_storm_loses_nothing_doubles_nothing_and_hides_nothing(
    own_kafka: KafkaServer, own_elasticsearch: ElasticsearchServer, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    own = Servers(own_kafka, own_elasticsearch, own_postgres)
    chosen = sorted(set(FAULTS) - LEFT_OUT)
    report = await campaign(own, tmp_path, seed=SEED, minutes=1, chosen=chosen)
    print(report.table())  # noqa: T201 - what a failure is read by
    assert report.results.differences == []
    assert set(report.faults) == {*chosen, AWAY}
    assert report.results.emitted >= EVENTS
