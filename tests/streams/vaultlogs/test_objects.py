"""Object ids and hosts: what is Key Vault's, and what only looks like it."""

import pytest

from streams.vaultlogs.messages import file_key
from streams.vaultlogs.normalise import Reason, VaultRecordRejected, normalise
from tests.streams.vaultlogs.records import RESOURCE, VERSION, Record, as_azkv, as_diagnostics, record

HSM = RESOURCE.replace("VAULTS", "MANAGEDHSMS")


def reason_of(original: Record, resource_id: str | None = None) -> Reason:
    with pytest.raises(VaultRecordRejected) as caught:
        normalise(original, resource_id=resource_id)
    return caught.value.reason


@pytest.mark.parametrize(
    "host",
    [
        "kt-prod.vault.azure.net.evil.example",
        "kt-prod.vault.azure.net@evil.example",
        "evil.example\\kt-prod.vault.azure.net",
        "kt-prod.vault-azure.net",
        "kt-prodvault.azure.net",
        "kt-prod.vault.azure.net.",
        "kt.prod.vault.azure.net",
        "vault.azure.net",
        "kt-prod.vаult.azure.net",  # noqa: RUF001 - a Cyrillic letter, on purpose
        "\u212at-prod.vault.azure.net",
        "management.azure.com.evil.example",
        "kt-prod.vault.azure.net:443:1",
    ],
)
@pytest.mark.parametrize("field", ["id", "requestUri"])
def test_hosts_that_only_look_like_a_vault_are_rejected(host: str, field: str) -> None:
    assert reason_of(record("KeyUnwrap", 200, **{field: f"https://{host}/keys/tokens-kek"})) is Reason.FOREIGN_HOST


@pytest.mark.parametrize("suffix", ["vault.azure.net", "vault.azure.cn", "vault.usgovcloudapi.net"])
def test_the_clouds_of_azure_are_known(suffix: str) -> None:
    uri = f"https://KT-Prod.{suffix}:443/keys/Tokens-KEK/{VERSION}/?api-version=7.6"

    access = normalise(record(id=uri, requestUri=uri))

    assert (access.vault, access.object_name, access.object_version) == ("kt-prod", "tokens-kek", VERSION)


def test_a_managed_hsm_is_known_by_resource_and_host() -> None:
    uri = f"https://kt-prod.managedhsm.azure.net/keys/tokens-kek/{VERSION}"

    assert normalise(record(id=uri, requestUri=uri) | {"resourceId": HSM}).vault == "kt-prod"
    assert reason_of(record(id=uri, requestUri=uri)) is Reason.VAULT_MISMATCH


@pytest.mark.parametrize("field", ["id", "requestUri"])
def test_a_record_whose_resource_and_host_disagree_is_quarantined(field: str) -> None:
    original = record("KeyUnwrap", 200, **{field: "https://other.vault.azure.net/keys/tokens-kek"})

    assert reason_of(original) is Reason.VAULT_MISMATCH


def test_the_resource_that_the_feed_knows_must_agree_too() -> None:
    assert reason_of(record(), RESOURCE.replace("KT-PROD", "OTHER")) is Reason.VAULT_MISMATCH
    assert normalise(record(), resource_id=RESOURCE.lower()).vault == "kt-prod"


@pytest.mark.parametrize(
    ("path", "kind", "name", "version"),
    [
        ("/keys/A", "key", "a", None),
        ("/keys/a/", "key", "a", None),
        (f"/keys/a/{VERSION}", "key", "a", VERSION),
        (f"/keys/a/{VERSION}/unwrapkey", "key", "a", VERSION),
        ("/keys/a/versions", "key", "a", None),
        ("/keys/a/rotationpolicy", "key", "a", None),
        ("/deletedkeys/a", "key", "a", None),
        ("/secrets/a/1", "secret", "a", "1"),
        ("/deletedsecrets/a", "secret", "a", None),
        ("/certificates/a/pending", "certificate", "a", None),
        ("/certificates/issuers/acme", "certificate", None, None),
        ("/keys", "key", None, None),
        ("/", None, None, None),
        ("", None, None, None),
        ("/keys/**masked**", None, None, None),
        ("/keys/a%2Fb", None, None, None),
        ("/storage/a", None, None, None),
    ],
)
def test_the_path_names_kind_name_and_version(
    path: str, kind: str | None, name: str | None, version: str | None
) -> None:
    original = record("KeyGet", id=f"https://kt-prod.vault.azure.net{path}", requestUri=None)

    access = normalise(original)

    assert (access.object_kind, access.object_name, access.object_version) == (kind, name, version)


def test_a_restore_has_no_key_called_restore() -> None:
    uri = "https://kt-prod.vault.azure.net/keys/restore?api-version=7.6"

    access = normalise(record("KeyRestore", id=None, requestUri=uri))

    assert (access.object_kind, access.object_name) == ("key", None)


def test_the_version_of_the_uri_fills_in_only_for_the_same_key() -> None:
    host = "https://kt-prod.vault.azure.net/keys"

    same = normalise(record(id=f"{host}/a", requestUri=f"{host}/A/{VERSION}/unwrapkey"))
    other = normalise(record(id=f"{host}/a", requestUri=f"{host}/b/{VERSION}/unwrapkey"))

    assert (same.object_version, other.object_version) == (VERSION, None)


def test_a_uri_that_cannot_be_parsed_gives_no_object_where_the_resource_is_known() -> None:
    masked = record("KeyGet", id=None, requestUri="https://[my-key-vault].vault.azure.net/keys/a")

    access = normalise(masked)

    assert (access.vault, access.object_kind) == ("kt-prod", None)
    del masked["resourceId"]
    assert reason_of(masked) is Reason.NO_VAULT


def test_without_a_resource_the_host_names_the_vault() -> None:
    original = record()
    del original["resourceId"]

    assert normalise(original).vault == "kt-prod"


def test_the_key_of_the_topic_is_the_same_for_every_copy() -> None:
    original = record()

    keys = {file_key(original), file_key(as_diagnostics(original)), file_key(as_azkv(original))}

    assert keys == {b"kt-prod/tokens-kek"}
    assert file_key({"anything": "else"}) == b"/"
