import os
from dataclasses import replace
from pathlib import Path

import pytest

import cryptocore
from cryptocore import AuditTrail, CryptoCore
from cryptocore.errors import ConfigurationError, UnknownPurpose
from cryptocore.kafka import COMPRESSIONS
from cryptocore.registry import Registry, Role
from cryptocore.settings import CoreSettings
from cryptocore.signing import Signer
from cryptocore.testing import register


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    signer = Signer.generate()
    signer.write_file(tmp_path / "billing.key")
    (tmp_path / "sources.json").write_bytes(register(signer, source="billing").encode())
    for name, value in {
        "SERVICE": "billing",
        "SPOOL_DIR": str(tmp_path / "spool"),
        "STORE_URL": "postgresql+psycopg://user:planted-password@db/keys?sslmode=verify-full",
        "REGISTRY_FILE": str(tmp_path / "sources.json"),
        "SIGNER_FILE": str(tmp_path / "billing.key"),
        "KAFKA_BOOTSTRAP": "kafka.example:9093",
        "KAFKA_SASL_USERNAME": "billing",
        "KAFKA_SASL_PASSWORD": "planted-password",
        "KEK_ALIAS": "tenant-kek",
        "KEK_VAULT_URL": "https://kv-prod.vault.azure.net",
        "KEK_NAME": "tokens",
    }.items():
        monkeypatch.setenv(f"KEYTRAIL_CORE_{name}", value)
    return monkeypatch


async def test_a_core_of_the_environment_opens_nothing_before_its_first_use(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    core = CryptoCore.from_env()

    assert not (tmp_path / "spool").exists()
    await core.close()


def test_a_key_signer_without_the_role_keys_is_refused_by_name(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = Signer.generate()
    other.write_file(tmp_path / "other.key")
    environment.setenv("KEYTRAIL_CORE_KEY_SIGNER_FILE", str(tmp_path / "other.key"))

    with pytest.raises(ConfigurationError, match=r"KEYTRAIL_CORE_KEY_SIGNER_FILE: signer .* is unknown"):
        CryptoCore.from_env()
    file = Path(os.environ["KEYTRAIL_CORE_REGISTRY_FILE"])
    entry = replace(register(other, source="billing").signers[0], roles=frozenset({Role.EVENTS}))
    file.write_bytes(Registry.load(file).with_signer(entry).encode())
    with pytest.raises(ConfigurationError, match=r"KEYTRAIL_CORE_KEY_SIGNER_FILE: signer .* has not the role keys"):
        CryptoCore.from_env()


def test_a_compression_without_its_package_is_refused_by_the_packages_name(environment: pytest.MonkeyPatch) -> None:
    for name, possible in COMPRESSIONS.items():
        environment.setenv("KEYTRAIL_CORE_KAFKA_COMPRESSION", name)
        if possible():
            CryptoCore.from_env()
        else:
            with pytest.raises(ConfigurationError, match=f"compression {name} needs the package cramjam"):
                CryptoCore.from_env()
    environment.setenv("KEYTRAIL_CORE_KAFKA_COMPRESSION", "brotli")
    with pytest.raises(ConfigurationError, match="KEYTRAIL_CORE_KAFKA_COMPRESSION"):
        CryptoCore.from_env()


def test_the_key_signer_of_another_service_is_refused_by_name(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = Signer.generate()
    other.write_file(tmp_path / "other.key")
    file = Path(os.environ["KEYTRAIL_CORE_REGISTRY_FILE"])
    registry = Registry.load(file).with_signer(register(other, source="crm").signers[0])
    file.write_bytes(registry.encode())
    environment.setenv("KEYTRAIL_CORE_KEY_SIGNER_FILE", str(tmp_path / "other.key"))

    with pytest.raises(ConfigurationError, match=r"KEYTRAIL_CORE_KEY_SIGNER_FILE: signer .* for crm, not for billing"):
        CryptoCore.from_env()


async def test_the_file_of_purposes_holds_for_the_core_of_the_environment(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "purposes.toml").write_text('[[purpose]]\nid = "crm-sync"\nservices = ["billing"]\n')
    environment.setenv("KEYTRAIL_CORE_PURPOSES", str(tmp_path / "purposes.toml"))
    core = CryptoCore.from_env()

    with pytest.raises(UnknownPurpose, match="'crm-snyc'"):
        core.parts.audit.who_acts("user:1", "crm-snyc")
    await core.close()


def test_a_reserve_that_is_the_whole_budget_is_refused(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("KEYTRAIL_CORE_VAULT_RESERVE", "200")

    with pytest.raises(ConfigurationError, match="vault_reserve"):
        CoreSettings.load()


def test_a_trail_needs_neither_key_store_nor_kek(environment: pytest.MonkeyPatch) -> None:
    for name in ("STORE_URL", "KEK_ALIAS", "KEK_VAULT_URL", "KEK_NAME"):
        environment.delenv(f"KEYTRAIL_CORE_{name}")

    AuditTrail.from_env()


def test_a_store_elsewhere_without_verified_tls_is_refused_unless_it_is_allowed(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("KEYTRAIL_CORE_STORE_URL", "postgresql+psycopg://user:planted-password@db/keys")
    with pytest.raises(ConfigurationError, match="verify-full") as refused:
        CryptoCore.from_env()
    assert "planted" not in str(refused.value)

    environment.setenv("KEYTRAIL_CORE_STORE_ALLOW_PLAINTEXT", "true")
    CryptoCore.from_env()


def test_settings_do_not_print_secrets(environment: pytest.MonkeyPatch) -> None:
    assert "planted" not in repr(CoreSettings.load())


def test_what_is_missing_or_wrong_is_named_without_its_value(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("KEYTRAIL_CORE_KEK_NAME")
    environment.setenv("KEYTRAIL_CORE_KAFKA_PARTITIONS", "planted")

    with pytest.raises(ConfigurationError) as caught:
        CoreSettings.load()
    assert "KEYTRAIL_CORE_KEK_NAME" in str(caught.value)
    assert "KEYTRAIL_CORE_KAFKA_PARTITIONS" in str(caught.value)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KEK_VAULT_URL", "https://127.0.0.1:8443"),
        ("KEK_VAULT_URL", "http://kv-prod.vault.azure.net"),
        ("KEK_VAULT_URL", "https://kv-prod.vault.azure.net.example"),
        ("SERVICE", "somebody-else"),
        ("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT"),
    ],
)
async def test_nothing_insecure_is_reached_by_the_environment(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(f"KEYTRAIL_CORE_{name}", value)

    with pytest.raises(ConfigurationError):
        CryptoCore.from_env()


def test_every_public_name_can_be_had() -> None:
    for name in cryptocore.__all__:
        assert getattr(cryptocore, name) is not None
