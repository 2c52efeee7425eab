"""The Key Vault adapter of cryptocore, against the local vault and through the real SDK."""

import dataclasses
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from cryptocore.azure import AzureKeyWrapper
from cryptocore.errors import ConfigurationError
from cryptocore.events import Reason
from cryptocore.testing import ManualClock
from cryptocore.wrapping import VaultCallFailed
from streams.demo.identities import Identity
from streams.demo.vault import VaultServer

HOST = "kv-test.vault.azure.net"
KEY = "tenant-kek"
BLOB = bytes(range(65))

Make = Callable[..., AzureKeyWrapper]


def logged(server: VaultServer, operation: str) -> list[dict[str, Any]]:
    return [record for record in server.vault(HOST).log.records if record["operationName"] == operation]


async def wrapped_by(wrapper: AzureKeyWrapper) -> tuple[str, bytes]:
    version = await wrapper.current_version()
    return version, (await wrapper.wrap(BLOB, version=version, call_ids=wrapper.draw_call_ids())).wrapped_dek


async def test_wrap_and_unwrap_are_remote_and_each_attempt_bears_its_own_id(
    server: VaultServer, make_wrapper: Make
) -> None:
    server.vault(HOST).correlation = "client"
    wrapper = make_wrapper()
    version = await wrapper.current_version()
    ids = wrapper.draw_call_ids()

    wrapped = await wrapper.wrap(BLOB, version=version, call_ids=ids)
    unwrapped = await wrapper.unwrap(wrapped.wrapped_dek, version=version, call_ids=wrapper.draw_call_ids())

    assert unwrapped.blob == BLOB
    assert [record["correlationId"] for record in logged(server, "KeyWrap")] == [ids[0]]
    (attempt,) = wrapped.attempts
    assert (attempt.call_id, attempt.http_status) == (ids[0], 200)
    assert attempt.request_id is not None
    assert len(set(ids)) == len(ids) == 3


async def test_the_request_id_of_the_answer_is_the_id_in_the_vaults_log(
    server: VaultServer, make_wrapper: Make
) -> None:
    wrapper = make_wrapper()
    version = await wrapper.current_version()

    wrapped = await wrapper.wrap(BLOB, version=version, call_ids=wrapper.draw_call_ids())

    assert logged(server, "KeyWrap")[0]["correlationId"] == wrapped.attempts[0].request_id


class CarelessVault(VaultServer):
    """A vault, or what stands before one, whose request ids are no ids."""

    said = ""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        response = await super()._handle(request)
        response.headers["x-ms-request-id"] = self.said
        return response


@pytest.mark.parametrize("said", ["two words", "x" * 129, "", "r\u00e9ponse"])
async def test_a_request_id_that_no_event_may_carry_counts_as_none(
    clock: ManualClock, workload: Identity, said: str
) -> None:
    server = CarelessVault([HOST], clock=clock, ids=os.urandom, jitter=random.Random(1))
    server.said = said
    server.vault(HOST).keys.create(KEY, clock.now_us())
    await server.start()
    wrapper = AzureKeyWrapper(
        "kek",
        vault_url=server.url(HOST),
        key_name=KEY,
        credential=server.directory.credential(workload),
        clock=clock,
        transport=server.transport(),
    )
    try:
        version = await wrapper.current_version()
        wrapped = await wrapper.wrap(BLOB, version=version, call_ids=wrapper.draw_call_ids())
        with pytest.raises(VaultCallFailed) as failed:
            await wrapper.unwrap(wrapped.wrapped_dek, version="0" * 32, call_ids=wrapper.draw_call_ids())
    finally:
        await wrapper.close()
        await server.stop()

    assert [one.request_id for one in (*wrapped.attempts, *failed.value.attempts)] == [None, None]


async def test_a_throttled_call_is_tried_again_under_the_next_id_after_retry_after(
    server: VaultServer, make_wrapper: Make
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    wrapper = make_wrapper(sleep=sleep)
    version = await wrapper.current_version()
    server.vault(HOST).throttled = 2
    ids = wrapper.draw_call_ids()

    wrapped = await wrapper.wrap(BLOB, version=version, call_ids=ids)

    assert [(a.call_id, a.http_status) for a in wrapped.attempts] == list(zip(ids, (429, 429, 200), strict=True))
    assert slept == [1.0, 1.0]


async def test_what_stays_throttled_fails_with_every_attempt_and_may_be_retried(
    server: VaultServer, make_wrapper: Make
) -> None:
    async def sleep(_: float) -> None:
        return None

    wrapper = make_wrapper(sleep=sleep)
    version = await wrapper.current_version()
    server.vault(HOST).throttled = 9

    with pytest.raises(VaultCallFailed) as failed:
        await wrapper.wrap(BLOB, version=version, call_ids=wrapper.draw_call_ids())

    assert (failed.value.reason, failed.value.retryable) == (Reason.VAULT_THROTTLED, True)
    assert len(failed.value.attempts) == 3


@pytest.mark.parametrize(
    ("permissions", "enabled", "key_name", "reason"),
    [
        ({"get", "wrapKey"}, True, KEY, Reason.VAULT_DENIED),
        ({"get", "wrapKey", "unwrapKey"}, False, KEY, Reason.VAULT_DENIED),
        ({"get", "wrapKey", "unwrapKey"}, True, "other", Reason.VAULT_NOT_FOUND),
    ],
)
async def test_a_refusal_is_final_and_has_its_reason(
    server: VaultServer,
    make_wrapper: Make,
    workload: Identity,
    permissions: set[str],
    enabled: bool,
    key_name: str,
    reason: Reason,
) -> None:
    version, wrapped = await wrapped_by(make_wrapper())
    server.vault(HOST).keys.get(KEY).versions[version].enabled = enabled
    caller = make_wrapper(dataclasses.replace(workload, permissions=frozenset(permissions)), key_name=key_name)

    with pytest.raises(VaultCallFailed) as failed:
        await caller.unwrap(wrapped, version=version, call_ids=caller.draw_call_ids())

    assert (failed.value.reason, failed.value.retryable, len(failed.value.attempts)) == (reason, False, 1)


async def test_a_vault_that_does_not_answer_is_unreachable_which_is_not_denied(
    server: VaultServer, make_wrapper: Make
) -> None:
    async def sleep(_: float) -> None:
        return None

    wrapper = make_wrapper(sleep=sleep)
    version, wrapped = await wrapped_by(wrapper)
    await server.stop()

    with pytest.raises(VaultCallFailed) as failed:
        await wrapper.unwrap(wrapped, version=version, call_ids=wrapper.draw_call_ids())

    assert (failed.value.reason, failed.value.retryable) == (Reason.VAULT_UNREACHABLE, True)
    assert [(a.http_status, a.request_id, a.ended_at) for a in failed.value.attempts] == [(None, None, None)] * 3


async def test_no_key_material_hangs_on_the_error(server: VaultServer, make_wrapper: Make, clock: ManualClock) -> None:
    async def sleep(_: float) -> None:
        return None

    wrapper = make_wrapper(sleep=sleep)
    version = await wrapper.current_version()
    await server.stop()

    with pytest.raises(VaultCallFailed) as failed:
        await wrapper.wrap(BLOB, version=version, call_ids=wrapper.draw_call_ids())

    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__ or failed.value.__context__ is None


async def test_an_answer_made_with_another_version_is_refused(server: VaultServer, make_wrapper: Make) -> None:
    wrapper = make_wrapper()
    keys = server.vault(HOST).keys
    key = keys.get(KEY)
    first = next(iter(key.versions))
    other = keys.create(KEY, 0)
    key.versions[first] = other  # the vault answers under another kid than it was asked for

    with pytest.raises(VaultCallFailed) as failed:
        await wrapper.wrap(BLOB, version=first, call_ids=wrapper.draw_call_ids())

    assert failed.value.reason is Reason.KID_MISMATCH


@pytest.mark.parametrize(
    ("kid", "same"),
    [
        (f"https://{HOST}/keys/{KEY}/v1", True),
        (f"https://{HOST.upper()}/keys/{KEY}/V1", True),
        (f"https://{HOST}:443/keys/{KEY}/v1", True),
        (f"https://kv-test.vault.azure.cn/keys/{KEY}/v1", False),
        (f"https://{HOST}.evil.example/keys/{KEY}/v1", False),
        (f"https://{HOST}/keys/{KEY}/v2", False),
        (f"https://{HOST}/keys/other/v1", False),
        ("", False),
    ],
)
async def test_a_kid_is_compared_with_its_whole_host(kid: str, same: bool, make_wrapper: Make) -> None:
    assert make_wrapper()._is_version(kid, "v1") is same


async def test_a_wait_that_is_longer_than_a_caller_has_ends_the_call_and_is_told(
    server: VaultServer, make_wrapper: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    wrapper = make_wrapper(sleep=sleep)
    version = await wrapper.current_version()
    monkeypatch.setattr("cryptocore.azure.MAX_RETRY_AFTER_S", 0.5)  # the local vault asks for a second
    server.vault(HOST).throttled = 1

    with pytest.raises(VaultCallFailed) as failed:
        await wrapper.wrap(BLOB, version=version, call_ids=wrapper.draw_call_ids())

    assert (failed.value.reason, failed.value.retryable, failed.value.retry_after_s) == (
        Reason.VAULT_THROTTLED,
        True,
        1,
    )
    assert (len(failed.value.attempts), slept) == (1, [])


async def test_a_credential_is_made_when_it_is_first_needed(
    server: VaultServer, clock: ManualClock, workload: Identity
) -> None:
    made = []

    def credential() -> Any:
        made.append(server.directory.credential(workload))
        return made[-1]

    def wrapper() -> AzureKeyWrapper:
        return AzureKeyWrapper(
            "kek",
            vault_url=server.url(HOST),
            key_name=KEY,
            credential=credential,
            clock=clock,
            transport=server.transport(),
        )

    one = wrapper()
    assert made == []
    await one.current_version()
    await one.close()
    await one.close()
    assert len(made) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://kv-test.vault.azure.net",
        "https://kv-test.vault.azure.net.evil.example",
        "https://evilvault.azure.net",
        "https://127.0.0.1:8443",
        "https://a.b.vault.azure.net",
    ],
)
def test_only_the_url_of_a_key_vault_is_taken(url: str, server: VaultServer, workload: Identity) -> None:
    with pytest.raises(ConfigurationError):
        AzureKeyWrapper("kek", vault_url=url, key_name=KEY, credential=server.directory.credential(workload))
