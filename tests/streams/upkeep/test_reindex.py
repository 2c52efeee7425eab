"""What a worker wrote and what is built again from the log are the same documents, on a real log."""

import asyncio
import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from alerts.thresholds import Limits
from cryptocore.registry import Registry
from streams.demo.fleet import PARTITIONS
from streams.index.port import DocKind, Document
from streams.index.writer import IndexWriter
from streams.messages import CORRELATE, FINDINGS, KEY_EVENTS, VAULT_ACCESS
from streams.pipeline import steps
from streams.running.process import Worker
from streams.settings import Settings
from streams.state import State
from streams.upkeep.reindex import Rebuilt, _Partition, rebuild
from tests.streams.counting import DictIndex
from tests.streams.working import fresh, until

COMMAND = "from streams.cli import app; app()"
CHANGING = {DocKind.KEK_USE, DocKind.ALERT}
PACE = {"revision", "opened_at", "updated_at", "judged_at", "delivered", "number", "text"}
"""Fields that tell when a step was called and what its shell did, not what happened; `text` says when it was judged."""


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo's files: batches, records and the registry."""
    folder = tmp_path_factory.mktemp("week")
    subprocess.run([sys.executable, "-c", COMMAND, "demo", "--out", str(folder), "--events", "1500"], check=True)
    return folder


async def _send_batches(settings: Settings, week: Path) -> None:
    """Batches as they were, and one message that is none."""
    async with AIOKafkaProducer(**settings.kafka_connection(), max_request_size=2 * 1024 * 1024) as producer:
        for line in (week / "batches.ndjson").read_bytes().splitlines():
            held = msgspec.json.decode(line)
            value, seal, signature = (base64.b64decode(held[name]) for name in ("value", "seal", "sig"))
            headers = [("kt-seal", seal), ("kt-sig", signature)]
            await producer.send(settings.topic(KEY_EVENTS), value, partition=held["partition"], headers=headers)
        await producer.send(settings.topic(KEY_EVENTS), b"no batch", partition=0)
        await producer.flush()


async def _feed(settings: Settings, week: Path, folder: Path) -> None:
    """Send vault records with the feed of files."""
    told = {
        "KEYTRAIL_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "KEYTRAIL_TOPIC_PREFIX": settings.topic_prefix,
        "KEYTRAIL_PARTITIONS": str(settings.partitions),
        "KEYTRAIL_FEED_STATE_DIR": str(folder / "feed"),
    }
    command = ("-c", COMMAND, "vault-feed", "files", str(week / "vault-logs"))
    feed = await asyncio.create_subprocess_exec(sys.executable, *command, env=os.environ | told)
    assert await feed.wait() == 0


async def _worked(settings: Settings, registry: Registry, index: DictIndex) -> None:
    """Let a worker take everything, and stop it."""
    deaths: list[str] = []
    worker = Worker(settings, steps(registry, Limits()), index, die=deaths.append)  # type: ignore[arg-type]
    await worker.start()
    await until(lambda: worker.shell.takeovers > 0)
    await until(lambda: worker.shell.messages[VAULT_ACCESS] > 0 and worker.shell.messages[FINDINGS] > 0)
    await _quiet(worker)
    await worker.stop()
    assert deaths == []


async def _quiet(worker: Worker) -> None:
    """Wait until a few seconds pass in which nothing but time is applied."""
    before, calm = -1, 0
    async with asyncio.timeout(90):
        while calm < 6:
            now = sum(worker.shell.messages.values())
            calm = calm + 1 if now == before and not worker.writer.held else 0
            before = now
            await asyncio.sleep(0.5)


def _documents(index: DictIndex) -> dict[tuple[DocKind, str], Any]:
    return {key: _timeless(document) for key, document in index.kept.items()}


def _timeless(document: Document) -> Any:
    body = msgspec.json.decode(document.body)
    return {name: value for name, value in body.items() if name not in PACE} if document.version else body


async def test_every_document_is_built_again_from_state_and_log(kafka: str, week: Path, tmp_path: Path) -> None:
    settings = await fresh(kafka, tmp_path, partitions=PARTITIONS)
    registry = Registry.load(week / "sources.json")
    written, again = DictIndex(), DictIndex()
    await _send_batches(settings, week)
    await _feed(settings, week, tmp_path)
    await _worked(settings, registry, written)

    rebuilt = await rebuild(settings, steps(registry, Limits()), again)
    twice = await rebuild(settings, steps(registry, Limits()), again)

    kinds = {kind for kind, _ in written.kept}
    assert kinds == set(DocKind)
    assert _documents(again) == _documents(written)
    assert rebuilt.left_out == rebuilt.refused == 0
    assert twice.documents == rebuilt.documents
    await _changing_documents_are_made_once_more_without_state(settings, registry, written)


async def _changing_documents_are_made_once_more_without_state(
    settings: Settings, registry: Registry, written: DictIndex
) -> None:
    again = DictIndex()
    writer, rebuilt = IndexWriter(again), Rebuilt()
    for topic in (CORRELATE, FINDINGS):
        for partition in range(settings.topic_partitions[topic]):
            await Forgetful(settings, steps(registry, Limits())[topic], (topic, partition), writer, rebuilt).run()
    await writer.flush()

    changing = {key: body for key, body in _documents(written).items() if key[0] in CHANGING}
    assert {key: body for key, body in _documents(again).items() if key[0] in CHANGING} == changing
    assert len(changing) > 5


class Forgetful(_Partition):
    """A partition whose state holds nothing any more."""

    async def _write_kept(self, state: State) -> None:
        del state
