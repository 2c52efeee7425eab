"""A worker's health and figures, asked for over HTTP as an orchestrator and Prometheus ask."""

import asyncio
import re
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from streams.index.port import DocKind
from streams.log.topics import INPUTS
from streams.messages import KEY_EVENTS
from streams.running.metrics import NAMES
from streams.running.process import PULSE_WITHIN_S, Worker
from streams.settings import Settings
from tests.streams.counting import DictIndex
from tests.streams.working import counted, fresh, send, until, working


async def ask(worker: Worker, path: str) -> httpx.Response:
    host, port = worker.web.address
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://{host}:{port}{path}")


async def figures(worker: Worker) -> dict[str, float]:
    """Sums over labels, by sample name."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families((await ask(worker, "/metrics")).text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


async def test_figures_say_what_the_worker_did_under_the_closed_list_of_names(kafka: str, tmp_path: Path) -> None:
    settings, index, deaths = await fresh(kafka, tmp_path), DictIndex(), list[str]()
    await send(settings, KEY_EVENTS, [b"a"] * 40)
    async with working(settings, index, deaths) as worker:
        await until(lambda: len(index.ids(DocKind.EVENT)) == 40)
        await until(lambda: worker.shell.owners[KEY_EVENTS, 0].indexed == 40)
        text = (await ask(worker, "/metrics")).text
        found = await figures(worker)

    families = {family.name for family in text_string_to_metric_families(text)}
    assert families == set(NAMES)
    assert found["keytrail_messages_total"] >= 40
    assert found["keytrail_index_documents_total"] >= 40
    assert found["keytrail_partitions"] == sum(settings.topic_partitions[topic] for topic in INPUTS)
    assert 'keytrail_messages_total{topic="key-events"} 40.0' in text
    assert 'keytrail_unindexed_messages{topic="key-events"} 0.0' in text


async def test_a_worker_is_ready_with_its_first_assignment_and_not_when_it_stops(kafka: str, tmp_path: Path) -> None:
    settings, index, deaths = await fresh(kafka, tmp_path), DictIndex(), list[str]()
    async with working(settings, index, deaths) as worker:
        await until(lambda: worker.shell.takeovers > 0)
        ready = await ask(worker, "/readyz")
        index.down = True
        await send(settings, KEY_EVENTS, [b"a"])
        await until(lambda: counted(worker, KEY_EVENTS) == {"a": 1})
        await until(lambda: worker.writer.unavailable_since is not None)
        without_index = await ask(worker, "/readyz")
        worker.stopping = True
        stopping = await ask(worker, "/readyz")
        alive = await ask(worker, "/healthz")
        index.down = False

    assert ready.status_code == 200
    assert ready.json()["index"] == "ok"
    assert without_index.status_code == 200
    assert without_index.json()["index"] == "unavailable"
    assert stopping.status_code == 503
    assert stopping.json()["problem"] == "stopping"
    assert alive.status_code == 200


async def test_a_worker_whose_clock_stands_still_is_not_alive(kafka: str, tmp_path: Path) -> None:
    settings, index, deaths = await fresh(kafka, tmp_path), DictIndex(), list[str]()
    async with working(settings, index, deaths) as worker:
        await until(lambda: worker.shell.takeovers > 0)
        assert (await ask(worker, "/healthz")).status_code == 200
        for task in list(worker.running):
            task.cancel()
        await asyncio.sleep(0.2)
        worker.shell.pulsed_s -= PULSE_WITHIN_S + 1
        answer = await ask(worker, "/healthz")

    assert answer.status_code == 503
    assert answer.json()["problem"] == "its clock does not tick"


def test_the_web_listens_on_loopback_unless_told_otherwise() -> None:
    assert Settings().web_host == "127.0.0.1"


def test_operations_lists_every_figure() -> None:
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    text = text.partition("## Health and figures")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `(keytrail_[a-z_]+?)(?:_total)?` \|", text, flags=re.MULTILINE))
    assert named == set(NAMES)
