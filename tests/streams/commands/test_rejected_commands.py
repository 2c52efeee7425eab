"""`keytrail rejected` on a real log: what was refused is listed, shown, and sent back as it came."""

import asyncio
import base64
import json
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from typer.testing import CliRunner

from cryptocore.clock import SystemClock
from streams.cli import app
from streams.commands.terminal import NOT_ALL_WELL, WRONG_USE
from streams.messages import KEY_EVENTS, REJECTED, Effects, Message
from streams.rejected import MAX_KEPT, reject
from streams.settings import Settings
from tests.streams.commands.test_commands import environment, run
from tests.streams.working import fresh

HEADERS = (("kt-seal", b"\x00\x01"), ("kt-sig", b"\xff"))


async def refused(settings: Settings, *values: tuple[str, bytes]) -> None:
    """Put messages into the topic `rejected` as a worker does."""
    now_ms = SystemClock().now_us() // 1000
    async with AIOKafkaProducer(**settings.kafka_connection(), max_request_size=2 * 1024 * 1024) as producer:
        for offset, (finding, value) in enumerate(values):
            effects = Effects()
            message = Message(KEY_EVENTS, 1, offset, now_ms, None, value, HEADERS)
            reject(message, finding, "seal.signer_id", "is not known", now_ms, effects)
            await producer.send_and_wait(settings.topic(REJECTED), effects.out[0].value)


async def arrived(settings: Settings) -> list[tuple[bytes | None, tuple[tuple[str, bytes], ...]]]:
    place = TopicPartition(settings.topic(KEY_EVENTS), 1)
    found = []
    async with AIOKafkaConsumer(**settings.kafka_connection(), auto_offset_reset="earliest") as consumer:
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        await consumer.seek_to_beginning(place)
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [(record.value, tuple(record.headers)) for record in records]
    return found


def test_what_was_refused_is_listed_shown_and_sent_back_as_it_came(kafka: str, tmp_path: Path) -> None:
    settings = asyncio.run(fresh(kafka, tmp_path))
    asyncio.run(refused(settings, ("signer_unknown", b"one\n"), ("seal_invalid", b"two\n"), ("signer_unknown", b"x\n")))
    told = environment(settings)

    listed = json.loads(run("rejected", "list", "--json", "--finding", "signer_unknown", **told).stdout)
    shown = json.loads(run("rejected", "show", str(listed[0]["number"]), **told).stdout)
    sent = run("rejected", "requeue", "--finding", "signer_unknown", "--yes", **told)

    assert [row["from"] for row in listed] == ["key-events/1@0", "key-events/1@2"]
    assert base64.b64decode(shown["value"]) == b"one\n"
    assert (shown["field"], shown["problem"]) == ("seal.signer_id", "is not known")
    assert sent.exit_code == 0
    assert asyncio.run(arrived(settings)) == [(b"one\n", HEADERS), (b"x\n", HEADERS)]
    assert "Nothing was rejected" in run("rejected", "list", "--finding", "chain_fork", **told).stdout


def test_what_was_cut_or_is_not_there_is_not_sent_back(kafka: str, tmp_path: Path) -> None:
    settings = asyncio.run(fresh(kafka, tmp_path))
    asyncio.run(refused(settings, ("seal_invalid", b"a" * (MAX_KEPT + 1)), ("document_refused", b"{}")))
    told = environment(settings)

    both = run("rejected", "requeue", "0", "1", "--yes", **told)
    absent = run("rejected", "requeue", "7", "--yes", **told)
    neither = run("rejected", "requeue", "--yes", **told)
    declined = CliRunner().invoke(app, ["rejected", "requeue", "0"], input="n\n", env=told)

    assert both.exit_code == NOT_ALL_WELL
    assert "0 was too large to be kept whole" in both.stdout
    assert "1 is a document that the index refused" in both.stdout
    assert (absent.exit_code, neither.exit_code) == (WRONG_USE, WRONG_USE)
    assert declined.exit_code == NOT_ALL_WELL
    assert asyncio.run(arrived(settings)) == []
