"""A core over the local Key Vault through the real SDK, used before a fork and then on both sides of it."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import pytest
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import AsyncHttpTransport

from cryptocore import CryptoCore, KeyStore, Signer, acting
from cryptocore.azure import AzureKeyWrapper
from cryptocore.errors import ConfigurationError
from cryptocore.events import AuditEvent, Operation, Outcome
from cryptocore.keys import KeyReason
from streams.demo.identities import Identity
from streams.demo.vault import VaultServer
from tests.cryptocore.services import OWNER, SERVICE, actors_in, emitter, lines_in, registry_of
from tests.cryptocore.test_forking import encrypt, in_child
from tests.cryptocore.vaulted import HOST, PRINCIPAL
from tests.streams.commands.localvault import vault_in_a_thread

SIGNER: Final = Signer.generate()
KEK: Final = "tenant-kek"
NEVER: Final = 4_102_444_800
WORKLOAD: Final = Identity(SERVICE, PRINCIPAL, "0a0a-app", "10.1.2.3", frozenset({"get", "wrapKey", "unwrapKey"}))


class Issued:
    """A credential with one token, which the vault's process issued: a child cannot ask for another."""

    made_in: Final[list[int]] = []

    def __init__(self, token: str) -> None:
        self._token = token
        self.made_in.append(os.getpid())

    async def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken(self._token, NEVER)

    async def close(self) -> None:
        """Nothing is held open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


@pytest.fixture
def server() -> Iterator[VaultServer]:
    with vault_in_a_thread() as server:
        server.vault(HOST).keys.create(KEK, 0)
        yield server


def vault_core(
    directory: Path,
    server: VaultServer,
    transport: AsyncHttpTransport[Any, Any] | Callable[[], AsyncHttpTransport[Any, Any]],
) -> CryptoCore:
    registry = registry_of(SIGNER)
    token = server.directory.issue(WORKLOAD)
    wrapper = AzureKeyWrapper(
        "kek", vault_url=f"https://{HOST}", key_name=KEK, credential=lambda: Issued(token), transport=transport
    )
    return CryptoCore(
        service=SERVICE,
        deployment=registry.deployment,
        registry=registry,
        store=KeyStore(f"sqlite:///{directory / 'keys.sqlite'}", registry=registry),
        wrappers={"kek": wrapper},
        kek_alias="kek",
        emitter=emitter(directory, SIGNER),
        key_signer=SIGNER,
        let_go=wrapper.close,
    )


def vault_calls(server: VaultServer) -> Counter[object]:
    return Counter(
        record["operationName"] for record in server.vault(HOST).log.records if record["resultType"] == "Success"
    )


def test_a_core_over_a_key_vault_works_on_both_sides_of_a_fork_each_with_a_connection_of_its_own(
    tmp_path: Path, server: VaultServer
) -> None:
    core = vault_core(tmp_path, server, server.transport)
    stored = encrypt(core, "job:parent", create_missing=True)
    before = vault_calls(server)
    wrapper: Any = core.parts.wrappers["kek"]
    parents = wrapper._connected[0]

    def decrypt(actor: str) -> None:
        with acting(actor=actor, purpose="crm-sync"):
            assert core.sync.decrypt(stored, owner=OWNER, record="r") == b"token"

    def work() -> None:
        starts_anew = wrapper._connected is None
        decrypt("job:child")
        assert starts_anew
        assert wrapper._connected[0] is not parents
        assert Issued.made_in[-1] == os.getpid()
        core.sync.close()

    in_child(work)
    assert vault_calls(server) - before == Counter({"KeyUnwrap": 1}), "the child has no DEK and asked for it"
    with acting(actor="job:parent", purpose="key-care"):
        core.sync.run(core.rotate(OWNER, reason=KeyReason.SCHEDULED))
    in_child(work)
    decrypt("job:parent")
    assert wrapper._connected[0] is parents
    core.sync.close()

    unwraps = [
        line.actor
        for line in lines_in(tmp_path, SIGNER)
        if isinstance(line, AuditEvent) and line.operation is Operation.UNWRAP and line.outcome is Outcome.SUCCEEDED
    ]
    assert unwraps.count("job:child") == 2
    assert actors_in(tmp_path, SIGNER)["job:child"] == 2


def test_a_transport_that_was_made_before_the_fork_is_refused_by_name_in_the_child_and_stays_the_parents(
    tmp_path: Path, server: VaultServer
) -> None:
    core = vault_core(tmp_path, server, server.transport)
    wrapper: Any = core.parts.wrappers["kek"]

    async def make() -> Any:
        return server.transport()  # on the loop on which the core works

    made = wrapper._transport = core.sync.run(make())
    stored = encrypt(core, "job:parent", create_missing=True)
    before = vault_calls(server)

    def work() -> None:
        with acting(actor="job:child", purpose="crm-sync"):
            with pytest.raises(ConfigurationError, match="the transport of the KEK kek was made before"):
                core.sync.decrypt(stored, owner=OWNER, record="r")
            with pytest.raises(ConfigurationError, match="give AzureKeyWrapper what makes one"):
                core.sync.run(core.rotate(OWNER, reason=KeyReason.SCHEDULED))
        asyncio.run(wrapper.close())
        assert made.session is not None
        core.sync.close()

    in_child(work)
    assert vault_calls(server) == before
    with acting(actor="job:parent", purpose="key-care"):
        core.sync.run(core.rotate(OWNER, reason=KeyReason.SCHEDULED))
    core.sync.close()

    children = [
        line for line in lines_in(tmp_path, SIGNER) if isinstance(line, AuditEvent) and line.actor == "job:child"
    ]
    assert children == [], "no intent of a call that cannot be made"
    assert made.session is None


def test_a_transport_of_the_callers_that_was_never_used_is_closed_where_it_was_made(
    tmp_path: Path, server: VaultServer
) -> None:
    async def unused() -> None:
        transport = server.transport()
        core = vault_core(tmp_path, server, transport)
        await core.close()
        assert transport.session is None

    asyncio.run(unused())
