"""The public records, each with what the facts say of it; written by hand, not from the program's output."""

from pathlib import Path
from typing import NamedTuple

import pytest

from streams.vaultlogs.files import FileRecord, FileRejected, read
from streams.vaultlogs.normalise import normalise

SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "akv"
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the public Key Vault records are not on this machine")


class Who(NamedTuple):
    """A caller: what its id begins with, its UPN, its kind."""

    ident: str | None
    upn: str | None
    kind: str


DOE = Who("d4ba3e84-0444-4841-aaf7-", "john.doe@dummy.onmicrosoft.com", "user")
CONTOSO = Who("d9da5048-2737-4770-bd64-", "live.com#username@outlook.com", "user")
PLACEHOLDER = Who("xxxxxxxxxxxxxxxxxxxxxxxxxxxx", "test@test.com", "user")
COOK = Who("00000000-0000-0000-0000-000000000000", "live.com#zaalion@outlook.com", "user")
HSM_ADMIN = Who("<object-id>", "<user-email>", "user")
NOBODY = Who(None, None, "unknown")


class Expected(NamedTuple):
    """What the facts say of one record."""

    operation: str
    access_class: str
    outcome: str | None
    denial: str | None
    status: int | None
    vault: str
    kind: str | None
    name: str | None
    who: Who


NEW_SECRET = "Microsoft.KeyVault.SecretNewVersionCreated"
TEST = "testpermissionvault"
EXPECTED: dict[str, list[Expected]] = {
    "auditevents-real.ndjson": [
        Expected("CertificateCreate", "admin", "succeeded", None, 202, TEST, "certificate", "fdfdffffd", DOE),
        Expected("CertificateImport", "admin", "succeeded", None, 200, "myright3", "certificate", "yfuffuygu", DOE),
        Expected("KeyBackup", "admin", "succeeded", None, 200, TEST, "key", "egzghfgrrg", DOE),
        Expected("KeyDelete", "admin", "succeeded", None, 200, TEST, "key", "egzghfgrrg", DOE),
        Expected("KeyGet", "read", "succeeded", None, 200, TEST, "key", "myfirstkey", DOE),
        Expected("KeyList", "list", "denied", "rbac", 403, "keytestint", "key", None, DOE),
        Expected("KeyListVersions", "list", "succeeded", None, 200, TEST, "key", "egzghfgrrg", DOE),
        Expected("KeyPurge", "admin", "denied", "access_policy", 403, TEST, "key", "myfirstkey", DOE),
        Expected("SecretBackup", "admin", "succeeded", None, 200, TEST, "secret", "keykey", DOE),
        Expected("SecretGet", "use", "not_found", None, 404, TEST, "secret", "keykey", DOE),
        Expected("SecretList", "list", "succeeded", None, 200, TEST, "secret", None, DOE),
        Expected("SecretPurge", "admin", "denied", "access_policy", 403, TEST, "secret", "mysecret", DOE),
        Expected("SecretRestore", "admin", "failed", None, 409, TEST, "secret", "keykey", DOE),
        Expected("VaultGet", "read", "succeeded", None, 200, "keytestint", None, None, DOE),
        Expected("VaultGet", "read", "succeeded", None, 200, "contosokeyvault", None, None, CONTOSO),
        Expected("VaultGet", "read", "succeeded", None, 200, "testkey", None, None, PLACEHOLDER),
    ],
    "authentication-401-real.ndjson": [
        Expected("Authentication", "challenge", None, None, 401, "[my-key-vault]", None, None, NOBODY),
        Expected("Authentication", "challenge", None, None, 401, "contoso-dev", "secret", "unittestsecret", NOBODY),
    ],
    "azurediagnostics-flat.json": [
        Expected("VaultGet", "read", "succeeded", None, 200, "mycook2551kv", None, None, COOK),
    ],
    "envelope-records.json": [
        Expected("VaultGet", "read", "succeeded", None, 200, "contosokeyvault", None, None, CONTOSO),
    ],
    "eventgrid-cloudevent.json": [
        Expected(NEW_SECRET, "notification", None, None, None, "sample-kv", "secret", "newsecret", NOBODY),
    ],
    "eventgrid-event.json": [
        Expected(NEW_SECRET, "notification", None, None, None, "sample-kv", "secret", "newsecret", NOBODY),
    ],
    "managedhsm-array.json": [
        Expected("BackupCreate", "admin", "succeeded", None, 202, "<hsm-name>", None, None, HSM_ADMIN),
    ],
}  # fmt: skip


@pytest.mark.parametrize("file", EXPECTED)
def test_every_public_record_is_judged_as_the_facts_say(file: str) -> None:
    found = [item for item in read([SAMPLES / file]) if isinstance(item, FileRecord)]

    seen = [normalise(item.original) for item in found]

    assert len(seen) == len(EXPECTED[file])
    for access, expected in zip(seen, EXPECTED[file], strict=True):
        assert (access.operation, access.access_class, access.outcome, access.denial) == expected[:4]
        assert (access.http_status, access.vault, access.object_kind, access.object_name) == expected[4:8]
        assert (access.principal.id or "").startswith(expected.who.ident or "")
        assert (access.principal.id is None) == (expected.who.ident is None)
        assert (access.principal.upn, access.principal.kind) == expected.who[1:]


def test_the_folder_holds_twenty_three_records_twenty_two_distinct_and_nothing_is_rejected() -> None:
    found = list(read([SAMPLES]))

    ids = [normalise(item.original).access_id for item in found if isinstance(item, FileRecord)]

    assert not [item for item in found if isinstance(item, FileRejected)]
    assert (len(ids), len(set(ids))) == (23, 22)


def test_event_grid_names_the_version_without_its_blank() -> None:
    [item] = [one for one in read([SAMPLES / "eventgrid-event.json"]) if isinstance(one, FileRecord)]

    assert normalise(item.original).object_version == "ee059b2bb5bc48398a53b168c6cdcb10"


def test_times_keep_the_seventh_digit_and_three_digits_become_seven() -> None:
    real = next(one for one in read([SAMPLES / "auditevents-real.ndjson"]) if isinstance(one, FileRecord))
    hsm = next(one for one in read([SAMPLES / "managedhsm-array.json"]) if isinstance(one, FileRecord))

    assert normalise(real.original).time == "2024-04-03T14:03:10.7886260Z"
    assert normalise(hsm.original).time == "2020-08-31T19:52:39.7630000Z"


def test_a_caller_in_a_known_subnet_is_placed_by_the_subnet_and_a_masked_address_is_none() -> None:
    first = next(one for one in read([SAMPLES / "authentication-401-real.ndjson"]) if isinstance(one, FileRecord))

    access = normalise(first.original)

    assert access.address is None
    assert access.network is not None
    assert access.network.endswith("/virtualnetworks/[my virtual net]/subnets/[my subnet]")
