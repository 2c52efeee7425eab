"""Sealed batches to Kafka, and how anything of cryptocore connects to it.

Each batch is one message in the partition it was sealed for, with its two headers; it counts as sent when all in-sync
replicas have it. A broker whose topic has another number of partitions is refused: the partition is part of the seal.
"""

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.codec import has_gzip, has_lz4, has_zstd
from aiokafka.errors import KafkaError

from cryptocore import forking
from cryptocore.addresses import all_loopback
from cryptocore.batch import SealedBatch
from cryptocore.errors import ConfigurationError, Failed

MAX_REQUEST: Final = 1024 * 1024
"""A value of at most 900 KiB, its headers, and the request around it."""
REQUEST_TIMEOUT_MS: Final = 15_000
COMPRESSIONS: Final = {"none": lambda: True, "gzip": has_gzip, "lz4": has_lz4, "zstd": has_zstd}
"""And whether this installation can."""
PROTOCOLS: Final = ("SASL_SSL", "SSL", "PLAINTEXT")


def tls_context(ca_file: str | Path | None = None) -> ssl.SSLContext:
    """Make a context that verifies the broker and speaks TLS 1.2 or later."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def connection(
    bootstrap: str,
    *,
    security_protocol: str = "SASL_SSL",
    ssl_context: ssl.SSLContext | None = None,
    sasl: Mapping[str, str] | None = None,
    token_provider: AbstractTokenProvider | None = None,
    allow_plaintext: bool = False,
    client_id: str = "keytrail-core",
) -> dict[str, Any]:
    """Make the options with which aiokafka connects; the arguments are those of `KafkaTransport`.

    Raises:
        ConfigurationError: they do not protect the connection.
    """
    _check_protected(bootstrap, security_protocol, ssl_context, allow_plaintext=allow_plaintext)
    options: dict[str, Any] = {
        "bootstrap_servers": bootstrap,
        "client_id": client_id,
        "security_protocol": security_protocol,
    }
    if security_protocol != "PLAINTEXT":
        options["ssl_context"] = ssl_context or tls_context()
    if security_protocol == "SASL_SSL":
        options |= {"sasl_mechanism": "OAUTHBEARER"} if token_provider is not None else dict(sasl or {})
        options["sasl_oauth_token_provider"] = token_provider
        if "sasl_mechanism" not in options:
            raise ConfigurationError("SASL_SSL needs a mechanism and its credentials")
    return options


class KafkaTransport:
    """An idempotent producer; it connects when the first batch is sent.

    Args:
        bootstrap: `host:port`, comma-separated.
        topic: of sealed batches.
        partitions: of the topic's generation; the broker's count must be the same.
        security_protocol: SASL_SSL, SSL or PLAINTEXT.
        ssl_context: of `tls_context`, or the caller's own.
        sasl: what the mechanism needs: `sasl_mechanism` PLAIN with `sasl_plain_username` and `sasl_plain_password`.
        token_provider: for OAUTHBEARER, such as a managed identity's.
        allow_plaintext: PLAINTEXT to an address that is not of this machine.
        compression: none, gzip, lz4 or zstd, of messages on their way and in the log; seals are of what was compressed.

    Raises:
        ConfigurationError: the options do not protect the connection, or the compression needs a package.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        partitions: int,
        security_protocol: str = "SASL_SSL",
        ssl_context: ssl.SSLContext | None = None,
        sasl: Mapping[str, str] | None = None,
        token_provider: AbstractTokenProvider | None = None,
        allow_plaintext: bool = False,
        client_id: str = "keytrail-core",
        compression: str = "none",
    ) -> None:
        _check_compression(compression)
        self._compression = None if compression == "none" else compression
        self._topic = topic
        self._partitions = partitions
        self._options = connection(
            bootstrap,
            security_protocol=security_protocol,
            ssl_context=ssl_context,
            sasl=sasl,
            token_provider=token_provider,
            allow_plaintext=allow_plaintext,
            client_id=client_id,
        )
        self._producer: AIOKafkaProducer | None = None
        self._opening: asyncio.Task[None] | None = None
        forking.renew_in_child(self)

    def after_fork(self) -> None:
        """Leave the parent's connection to the parent."""
        forking.keep(self._producer, self._opening)
        self._producer = self._opening = None

    def __repr__(self) -> str:
        return f"KafkaTransport({self._options['bootstrap_servers']}, {self._topic})"

    async def open(self) -> None:
        """Connect, and compare the number of partitions.

        Raises:
            ConfigurationError: the topic has another number of partitions.
            Failed: the broker does not answer.
        """
        producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_request_size=MAX_REQUEST,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            compression_type=self._compression,
            **self._options,
        )
        try:
            await producer.start()
            found = await producer.partitions_for(self._topic)
        except KafkaError as err:
            await producer.stop()
            raise Failed(f"Kafka does not answer: {type(err).__name__}", retryable=True) from err
        if found != set(range(self._partitions)):
            await producer.stop()
            raise ConfigurationError(f"topic {self._topic} has {len(found)} partitions, not {self._partitions}")
        self._producer = producer

    async def send(self, partition: int, batch: SealedBatch) -> None:
        """Send a batch and wait for all in-sync replicas.

        Raises:
            ConfigurationError: the topic has another number of partitions.
            Failed: Kafka did not take it.
        """
        if self._producer is None:
            await self._open_once()
        producer = self._producer
        assert producer is not None
        try:
            await producer.send_and_wait(self._topic, batch.value, partition=partition, headers=batch.headers())
        except KafkaError as err:
            raise Failed(f"Kafka did not take the batch: {type(err).__name__}", retryable=True) from err

    async def _open_once(self) -> None:
        """Connect in a task of its own: a start that is cancelled half-way leaves its connection open."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self.open())
        await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()


def _check_compression(compression: str) -> None:
    if compression not in COMPRESSIONS:
        raise ConfigurationError(f"Kafka compression {compression!r} is none of {', '.join(COMPRESSIONS)}")
    if not COMPRESSIONS[compression]():
        raise ConfigurationError(
            f"Kafka compression {compression} needs the package cramjam here, and in the monitor's workers, which read "
            "it (pip install cramjam); gzip needs none"
        )


def _check_protected(
    bootstrap: str, security_protocol: str, context: ssl.SSLContext | None, *, allow_plaintext: bool
) -> None:
    if security_protocol not in PROTOCOLS:
        raise ConfigurationError(f"security protocol {security_protocol!r} is none of {', '.join(PROTOCOLS)}")
    if context is not None and context.minimum_version < ssl.TLSVersion.TLSv1_2:
        raise ConfigurationError("the TLS context allows less than TLS 1.2")
    if context is not None and not (context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname):
        raise ConfigurationError("the TLS context does not verify the broker")
    if security_protocol == "PLAINTEXT" and not allow_plaintext and not all_loopback(bootstrap):
        raise ConfigurationError("plaintext to another machine must be allowed explicitly (allow_plaintext)")
