"""The local vault, always through the real SDK: what it answers, and what it writes down."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.keyvault.keys.aio import KeyClient

from alerts.model import AccessClass, AccessOutcome, PrincipalKind
from cryptocore.testing import ManualClock
from streams.demo.identities import TOKEN_LIFE_US, Identity
from streams.demo.vault import VaultServer
from streams.vaultlogs.normalise import normalise

HOST = "kv-test.vault.azure.net"
KEY = "tenant-kek"

Make = Callable[[Identity], KeyClient]


def records(server: VaultServer) -> list[dict[str, Any]]:
    return server.vault(HOST).log.records


async def operate(client: KeyClient, server: VaultServer, verb: str, value: str, **headers: str) -> tuple[int, Any]:
    version = next(iter(server.vault(HOST).keys.get(KEY).versions))
    body = {"alg": "RSA-OAEP-256", "value": value}
    response = await client.send_request(
        HttpRequest("POST", f"keys/{KEY}/{version}/{verb}", json=body, headers=headers)
    )
    return response.status_code, response.json()


async def test_a_wrapped_value_unwraps_to_itself(server: VaultServer, make_client: Make, workload: Identity) -> None:
    client = make_client(workload)

    _, wrapped = await operate(client, server, "wrapkey", "c2VjcmV0")
    status, unwrapped = await operate(client, server, "unwrapkey", wrapped["value"])

    assert (status, unwrapped["value"]) == (200, "c2VjcmV0")
    assert unwrapped["kid"].startswith(f"https://{HOST}/keys/{KEY}/")


async def test_the_first_call_leaves_a_challenge_that_names_nobody(
    server: VaultServer, make_client: Make, workload: Identity
) -> None:
    client = make_client(dataclasses.replace(workload))
    server.directory.issue(workload)

    await client.get_key(KEY)
    challenged = [record for record in records(server) if record["operationName"] == "Authentication"]

    for record in challenged:
        assert record["identity"] == {}
        assert record["properties"]["httpStatusCode"] == 401
        assert "id" not in record["properties"]
        assert normalise(record).access_class is AccessClass.CHALLENGE
    assert records(server)[-1]["operationName"] == "KeyGet"


async def test_an_expired_token_is_challenged_and_renewed(
    server: VaultServer, make_client: Make, workload: Identity, clock: ManualClock
) -> None:
    client = make_client(workload)
    await client.get_key(KEY)
    before = len(records(server))

    clock.advance(TOKEN_LIFE_US / 1_000_000)
    await client.get_key(KEY)

    assert [record["operationName"] for record in records(server)[before:]] == ["Authentication", "KeyGet"]


async def test_result_type_says_success_even_of_a_refusal(
    server: VaultServer, make_client: Make, workload: Identity
) -> None:
    with pytest.raises(HttpResponseError) as refused:
        await make_client(workload).purge_deleted_key(KEY)

    record = records(server)[-1]
    access = normalise(record)
    assert refused.value.status_code == 403
    assert (record["operationName"], record["resultType"]) == ("KeyPurge", "Success")
    assert (access.outcome, access.denial) == (AccessOutcome.DENIED, "rbac")


async def test_a_disabled_key_refuses_to_unwrap_and_still_wraps(
    server: VaultServer, make_client: Make, workload: Identity
) -> None:
    client = make_client(workload)
    _, wrapped = await operate(client, server, "wrapkey", "c2VjcmV0")
    next(iter(server.vault(HOST).keys.get(KEY).versions.values())).enabled = False

    unwrap, answer = await operate(client, server, "unwrapkey", wrapped["value"])
    wrap, _ = await operate(client, server, "wrapkey", "c2VjcmV0")

    assert (unwrap, wrap) == (403, 200)
    assert answer["error"]["innererror"]["code"] == "KeyDisabled"
    assert normalise(records(server)[-2]).denial == "key_disabled"


async def test_an_expired_key_still_unwraps(server: VaultServer, make_client: Make, workload: Identity) -> None:
    client = make_client(workload)
    next(iter(server.vault(HOST).keys.get(KEY).versions.values())).expires_s = 1

    _, wrapped = await operate(client, server, "wrapkey", "c2VjcmV0")

    assert (await operate(client, server, "unwrapkey", wrapped["value"]))[0] == 200


async def test_a_workload_has_no_upn_and_a_person_has(
    server: VaultServer, make_client: Make, workload: Identity
) -> None:
    person = dataclasses.replace(workload, upn="ada@example.com", object_id="0c0c-oid")

    await make_client(workload).get_key(KEY)
    await make_client(person).get_key(KEY)
    gets = [normalise(record).principal for record in records(server) if record["operationName"] == "KeyGet"]

    assert [(each.id, each.kind, each.upn) for each in gets] == [
        ("0b0b-oid", PrincipalKind.WORKLOAD, None),
        ("0c0c-oid", PrincipalKind.USER, "ada@example.com"),
    ]


@pytest.mark.parametrize("whose", ["client", "service"])
async def test_the_correlation_id_is_the_clients_or_the_services(
    server: VaultServer, make_client: Make, workload: Identity, whose: Any
) -> None:
    server.vault(HOST).correlation = whose

    await operate(make_client(workload), server, "wrapkey", "c2VjcmV0", **{"x-ms-client-request-id": "call-1"})

    assert (records(server)[-1]["correlationId"] == "call-1") == (whose == "client")


async def test_a_deleted_key_can_be_recovered_until_it_is_purged(
    server: VaultServer, make_client: Make, workload: Identity
) -> None:
    client = make_client(dataclasses.replace(workload, permissions=frozenset({"get", "delete", "recover", "purge"})))

    await client.delete_key(KEY)
    recovered = await client.recover_deleted_key(KEY)
    await client.delete_key(KEY)
    await client.purge_deleted_key(KEY)

    assert recovered.name == KEY
    with pytest.raises(ResourceNotFoundError):
        await client.get_deleted_key(KEY)
    logged = [record["operationName"] for record in records(server) if "Get" not in record["operationName"]]
    assert [name for name in logged if name != "Authentication"] == ["KeyDelete", "KeyRecover", "KeyDelete", "KeyPurge"]


async def test_every_record_is_read_by_the_normaliser_and_no_value_is_in_the_log(
    server: VaultServer, make_client: Make, workload: Identity
) -> None:
    client = make_client(workload)
    await operate(client, server, "wrapkey", "c2VjcmV0LXNlY3JldA")
    await operate(client, server, "unwrapkey", "bm90LWEtd3JhcA")
    [_ async for _ in client.list_properties_of_keys()]

    classes = [normalise(record).access_class for record in records(server)]

    assert classes[-3:] == [AccessClass.USE, AccessClass.USE, AccessClass.LIST]
    assert "c2VjcmV0LXNlY3JldA" not in str(records(server))
