"""One local vault for each test, and identities to call it with."""

import os
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from azure.keyvault.keys.aio import KeyClient

from cryptocore.azure import AzureKeyWrapper
from cryptocore.testing import ManualClock
from streams.demo.identities import Identity
from streams.demo.vault import VaultServer

HOST = "kv-test.vault.azure.net"
KEY = "tenant-kek"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def server(clock: ManualClock) -> AsyncIterator[VaultServer]:
    server = VaultServer([HOST], clock=clock, ids=os.urandom, jitter=random.Random(1))
    server.vault(HOST).keys.create(KEY, clock.now_us())
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def workload() -> Identity:
    permissions = frozenset({"get", "list", "wrapKey", "unwrapKey"})
    return Identity("billing", "0b0b-oid", "0a0a-app", "10.1.2.3", permissions)


@pytest.fixture
async def make_client(server: VaultServer) -> AsyncIterator[Callable[[Identity], KeyClient]]:
    """The real SDK client, as somebody."""
    made: list[KeyClient] = []

    def make(identity: Identity) -> KeyClient:
        credential = server.directory.credential(identity)
        client = KeyClient(server.url(HOST), credential, transport=server.transport(), retry_total=0)
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()


@pytest.fixture
async def make_wrapper(
    server: VaultServer, clock: ManualClock, workload: Identity
) -> AsyncIterator[Callable[..., AzureKeyWrapper]]:
    """Our adapter over the real SDK, as a workload; keyword arguments go to its constructor."""
    made: list[AzureKeyWrapper] = []

    def make(identity: Identity = workload, **options: Any) -> AzureKeyWrapper:
        wrapper = AzureKeyWrapper(
            "kek",
            vault_url=server.url(HOST),
            key_name=options.pop("key_name", KEY),
            credential=server.directory.credential(identity),
            clock=clock,
            transport=server.transport(),
            **options,
        )
        made.append(wrapper)
        return wrapper

    yield make
    for wrapper in made:
        await wrapper.close()
