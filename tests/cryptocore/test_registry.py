import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cryptocore.clock import parse_rfc3339
from cryptocore.errors import RegistryInvalid
from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import Signer

BILLING = Signer.from_private_bytes(b"\x01" * 32)
CRM = Signer.from_private_bytes(b"\x02" * 32)
ALICE = Signer.from_private_bytes(b"\x03" * 32)
FROM = parse_rfc3339("2026-01-01T00:00:00.000000Z") // 1000
UNTIL = parse_rfc3339("2027-01-01T00:00:00.000000Z") // 1000


def entry(signer: Signer, source: str, *roles: Role, **more: Any) -> RegisteredSigner:
    shared: dict[str, Any] = {"vault_principals": (), "person": None, "valid_from_ms": FROM, "valid_until_ms": UNTIL}
    return RegisteredSigner(
        signer_id=signer.signer_id,
        public_key=signer.public_key,
        source=source,
        roles=frozenset(roles),
        **{**shared, **more},
    )


REGISTRY = Registry(
    b"\xd0" * 16,
    (
        entry(BILLING, "billing", Role.EVENTS, Role.KEYS, vault_principals=("0a1b-principal", "second")),
        entry(CRM, "crm", Role.EVENTS, compromised_from_ms=FROM + 5000),
        entry(ALICE, "people", Role.APPROVE, person="Alice Example"),
    ),
)


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(REGISTRY.encode())
    return loaded


def test_a_registry_is_read_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "sources.json"
    path.write_bytes(REGISTRY.encode())

    assert Registry.load(path) == REGISTRY


def test_signers_sources_and_principals_are_found() -> None:
    assert REGISTRY.get(CRM.signer_id) == REGISTRY.signers[1]
    assert REGISTRY.get(b"\0" * 16) is None
    assert REGISTRY.sources() == {"billing", "crm"}
    assert REGISTRY.principals_of("billing") == {"0a1b-principal", "second"}
    assert REGISTRY.principals_of("crm") == frozenset()
    assert REGISTRY.source_of_principal("0A1B-Principal") == "billing"
    assert REGISTRY.source_of_principal("other") is None


def test_a_signer_counts_within_its_role_and_time() -> None:
    billing = REGISTRY.signers[0]

    assert billing.usable(Role.KEYS, FROM)
    assert billing.usable(Role.EVENTS, UNTIL - 1)
    assert not billing.usable(Role.EVENTS, FROM - 1)
    assert not billing.usable(Role.EVENTS, UNTIL)
    assert not billing.usable(Role.APPROVE, FROM)


def test_a_compromised_signer_is_suspect_from_then_on() -> None:
    crm = REGISTRY.signers[1]

    assert not crm.suspect(FROM + 4999)
    assert crm.suspect(FROM + 5000)
    assert crm.usable(Role.EVENTS, FROM + 5000)
    assert not REGISTRY.signers[0].suspect(UNTIL)


def test_a_rotation_is_a_new_entry_with_overlap() -> None:
    following = Signer.generate()

    grown = REGISTRY.with_signer(entry(following, "billing", Role.EVENTS, vault_principals=("second", "third")))

    assert len(grown.signers) == 4
    assert grown.principals_of("billing") == {"0a1b-principal", "second", "third"}
    assert len(REGISTRY.signers) == 3
    with pytest.raises(RegistryInvalid, match=r"^signers\[4\]\.signer_id: listed before"):
        grown.with_signer(grown.signers[0])


def set_field(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(loaded: dict[str, Any]) -> None:
        loaded["signers"][1][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (set_field("signer_id", "00" * 16), "signers[1].signer_id"),
        (set_field("signer_id", CRM.signer_id.hex().upper()), "signers[1].signer_id"),
        (set_field("public_key", "zz"), "signers[1].public_key"),
        (set_field("source", "CRM"), "signers[1].source"),
        (set_field("source", 5), "signers[1].source"),
        (set_field("roles", []), "signers[1].roles"),
        (set_field("roles", ["admin"]), "signers[1].roles"),
        (set_field("roles", ["events", "events"]), "signers[1].roles"),
        (set_field("roles", "events"), "signers[1].roles"),
        (set_field("roles", ["approve"]), "signers[1].person"),
        (set_field("person", "a\nb"), "signers[1].person"),
        (set_field("vault_principals", ["ABC"]), "signers[1].vault_principals"),
        (set_field("vault_principals", ["x", "x"]), "signers[1].vault_principals"),
        (set_field("vault_principals", ["second"]), "signers[1].vault_principals"),
        (set_field("vault_principals", [5]), "signers[1].vault_principals"),
        (set_field("valid_from", "2026-01-01"), "signers[1].valid_from"),
        (set_field("valid_from", "2026-W01-1T00:00:00.000000Z"), "signers[1].valid_from"),
        (set_field("valid_from", "2028-01-01T00:00:00.000000Z"), "signers[1].valid_until"),
        (set_field("valid_until", "2026-06-01T00:00:00.000001Z"), "signers[1].valid_until"),
        (set_field("valid_until", None), "signers[1].valid_until"),
        (set_field("compromised_from", 0), "signers[1].compromised_from"),
        (set_field("comment", "x"), "signers[1].comment"),
        (lambda loaded: loaded["signers"][2].pop("person"), "signers[2].person"),
        (lambda loaded: loaded["signers"].append("x"), "signers[3]"),
        (lambda loaded: loaded.update(signers={}), "signers"),
        (lambda loaded: loaded.update(v=2), "v"),
        (lambda loaded: loaded.update(v=True), "v"),
        (lambda loaded: loaded.update(deployment="d0"), "deployment"),
        (lambda loaded: loaded.pop("deployment"), "file.deployment"),
        (lambda loaded: loaded.update(extra=1), "file.extra"),
    ],
)
def test_a_broken_rule_names_the_signer_and_the_field(change: Callable[[dict[str, Any]], None], field: str) -> None:
    loaded = document()
    change(loaded)

    with pytest.raises(RegistryInvalid) as caught:
        Registry.parse(json.dumps(loaded).encode())

    assert caught.value.field == field


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"null", b"[" * 100_000, b" " * (1024 * 1024 + 1)])
def test_what_is_no_registry_is_refused(data: bytes) -> None:
    with pytest.raises(RegistryInvalid, match=r"^file: "):
        Registry.parse(data)


def test_a_repeated_key_is_refused() -> None:
    data = REGISTRY.encode().replace(b'"person": "Alice Example"', b'"person": "Bob", "person": "Alice Example"')

    with pytest.raises(RegistryInvalid, match=r"^person: repeated"):
        Registry.parse(data)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegistryInvalid, match=r"none\.json: No such file"):
        Registry.load(tmp_path / "none.json")


def test_a_registry_made_in_code_follows_the_same_rules() -> None:
    with pytest.raises(RegistryInvalid, match=r"^signers\[0\]\.signer_id: not that of public_key"):
        Registry(b"\xd0" * 16, (replace(REGISTRY.signers[0], public_key=CRM.public_key),))
    with pytest.raises(RegistryInvalid, match=r"^deployment: "):
        Registry(b"\xd0")
