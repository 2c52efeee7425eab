"""How bytes go to Elasticsearch and come back: whole bodies, answers read as far as anybody needs them, no logging."""

from typing import Any, Final, cast

import msgspec
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from aiohttp.payload import Payload
from elastic_transport import AiohttpHttpNode, HttpHeaders, JsonSerializer
from elastic_transport.client_utils import DEFAULT, DefaultType

_NO_ERRORS: Final = b'{"errors":false,'


class Answers(JsonSerializer):
    """Reads answers; one to a bulk without errors stays unread: it names 2,000 outcomes, all alike."""

    def json_loads(self, data: bytes) -> Any:
        if data.startswith(_NO_ERRORS):
            return {"errors": False}
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError as err:  # what the client expects of broken JSON
            raise ValueError(str(err)) from None


class Body(Payload):
    """A body that goes out in one go: aiohttp would wait for a turn of the loop with each 64 KiB of it.

    When it is given up, so is the connection, at once: a server that reads nothing would else leave a bulk in memory
    with every attempt, and get them all when it comes back.
    """

    _value: bytes

    def __init__(self, value: bytes) -> None:
        super().__init__(value)
        self._size = len(value)

    async def write(self, writer: AbstractStreamWriter) -> None:
        transport = cast("StreamWriter", writer).transport  # the writer forgets it when the connection is closed
        try:
            await writer.write(self._value)
        except BaseException:
            if transport is not None:
                transport.abort()
            raise

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)


class Node(AiohttpHttpNode):
    """A connection that never logs bodies, and sends each in one go."""

    async def perform_request(  # type: ignore[override]  # like every async node of the client
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: DefaultType | float | None = DEFAULT,
    ) -> Any:
        sent = None if body is None else cast("bytes", Body(body))
        return await super().perform_request(method, target, sent, headers, request_timeout)

    def _log_request(self, *_: Any, **__: Any) -> None:
        """Say nothing: the client would decode each body as soon as any log handler exists, and could print it."""
