"""What goes over the wire to the index, and what becomes of it when the index stands still."""

import asyncio
import socket

import pytest
from elastic_transport import SerializationError

from streams.index.connection import Answers
from streams.index.elastic import ElasticIndex
from streams.index.port import IndexUnavailable
from tests.streams.index.test_index_contract import event

BODY = 32 * 1024 * 1024
"""More than the buffers of a connection take."""

read = Answers().loads


def test_an_answer_without_errors_is_not_read_any_further() -> None:
    assert read(b'{"errors":false,"items":[{"create":{"status":201}}]}') == {"errors": False}
    assert read(b'{"errors":false,"items":[') == {"errors": False}


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (
            b'{"errors":true,"items":[{"create":{"status":409}}]}',
            {"errors": True, "items": [{"create": {"status": 409}}]},
        ),
        (b'{"items":[],"errors":false}', {"items": [], "errors": False}),
        (b'{"errors": false,"items":[]}', {"errors": False, "items": []}),
        (b"", None),
    ],
)
def test_any_other_answer_is_read_whole(answer: bytes, value: object) -> None:
    assert read(answer) == value


@pytest.mark.parametrize("answer", [b'{"errors":true,', b"<html>", b'"\xff"'])
def test_a_broken_answer_is_one_that_the_client_knows(answer: bytes) -> None:
    with pytest.raises(SerializationError):
        read(answer)


async def test_a_bulk_that_is_given_up_leaves_with_its_connection() -> None:
    """A server that accepts and reads nothing; when it wakes up, the rest of the bulk must not come after all."""
    got = asyncio.get_running_loop().create_future()
    woken = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await woken.wait()
        size = 0
        try:
            while part := await reader.read(1024 * 1024):
                size += len(part)
        except ConnectionResetError:
            pass
        writer.close()
        got.set_result(size)

    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    server = await asyncio.start_server(serve, sock=listening)
    index = ElasticIndex.connect([f"http://127.0.0.1:{listening.getsockname()[1]}"], timeout_s=0.5)

    with pytest.raises(IndexUnavailable, match="Timeout"):
        await index.write([event("a", purpose="x" * BODY)])
    woken.set()

    assert await asyncio.wait_for(got, 10) < BODY
    await index.close()
    server.close()
