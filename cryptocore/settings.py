"""What a service sets in its environment, `KEYTRAIL_CORE_*`, and the core that is made of it.

Nothing insecure can be reached from here: no local KEK, no vault that is none of Azure's, no plaintext to another
machine unless it is allowed by name.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cryptocore.emitter import HEARTBEAT_S, LINGER_MS, QUOTA_BYTES, Emitter
from cryptocore.errors import ConfigurationError
from cryptocore.event_texts import SERVICE
from cryptocore.registry import Registry, Role
from cryptocore.signing import Signer
from cryptocore.store import KeyStore
from cryptocore.vocabulary import Durability

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore


class CoreSettings(BaseSettings):
    """Each field is an environment variable with the prefix `KEYTRAIL_CORE_`."""

    model_config = SettingsConfigDict(
        env_prefix="KEYTRAIL_CORE_", frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    service: str = Field(pattern=f"^{SERVICE}$", description="the source that the signer speaks for")
    spool_dir: Path = Field(description="on a disk that outlives the process, unless durability is broker")
    store_url: SecretStr = Field(description="SQLAlchemy URL of the key store")
    registry_file: Path = Field(description="sources.json, as reviewed")
    signer_file: Path = Field(description="private key of the service, mode 0600")
    key_signer_file: Path | None = Field(default=None, description="private key with role keys; else signer_file")

    kafka_bootstrap: str = Field(description="host:port, comma-separated")
    kafka_topic: str = "key-events"
    kafka_partitions: int = Field(default=8, ge=1, le=65_535)
    kafka_generation: int = Field(default=1, ge=0, le=65_535)
    kafka_security_protocol: Literal["SASL_SSL", "SSL", "PLAINTEXT"] = "SASL_SSL"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ca_file: Path | None = None
    kafka_allow_plaintext: bool = False

    kek_alias: str = Field(description="named in key records; pinned to the vault and key below")
    kek_vault_url: str = Field(description="https://<name>.vault.azure.net or another of Azure's suffixes")
    kek_name: str

    durability: Durability = Durability.VOLUME
    linger_ms: int = Field(default=LINGER_MS, ge=0, le=10_000)
    heartbeat_s: float = Field(default=HEARTBEAT_S, gt=0, le=60)
    quota_bytes: int = Field(default=QUOTA_BYTES, ge=1024 * 1024)

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if (self.kafka_sasl_username is None) != (self.kafka_sasl_password is None):
            raise ValueError("kafka_sasl_username and kafka_sasl_password go together")
        return self

    @classmethod
    def load(cls) -> "CoreSettings":
        """Read the environment.

        Raises:
            ConfigurationError: names every variable that is missing or wrong, and no value.
        """
        nothing: dict[str, Any] = {}
        try:
            return cls(**nothing)
        except ValidationError as err:
            problems = "; ".join(_problem(error["loc"], error["msg"]) for error in err.errors(include_input=False))
            raise ConfigurationError(problems) from None


def build(settings: CoreSettings, *, credential: Any = None, token_provider: Any = None) -> "CryptoCore":
    """Make a core that opens nothing before its first use.

    Args:
        settings: as read.
        credential: an async Azure credential; None takes the process's own identity (DefaultAzureCredential).
        token_provider: of aiokafka, for OAUTHBEARER; None takes user name and password.

    Raises:
        ConfigurationError: the settings contradict each other or the registry.
        RegistryInvalid: the registry file cannot be used.
    """
    from cryptocore.azure import AzureKeyWrapper, process_credential  # noqa: PLC0415 - the extra `azure`
    from cryptocore.core import CryptoCore  # noqa: PLC0415 - which has from_env
    from cryptocore.kafka import KafkaTransport, tls_context  # noqa: PLC0415 - the extra `kafka`

    registry = Registry.load(settings.registry_file)
    signer = Signer.from_file(settings.signer_file)
    key_signer = Signer.from_file(settings.key_signer_file) if settings.key_signer_file else signer
    _check_signer(registry, signer, settings.service)
    ca_file = settings.kafka_ca_file
    transport = KafkaTransport(
        settings.kafka_bootstrap,
        settings.kafka_topic,
        partitions=settings.kafka_partitions,
        security_protocol=settings.kafka_security_protocol,
        ssl_context=tls_context(None if ca_file is None else str(ca_file)),
        sasl=_sasl(settings),
        token_provider=token_provider,
        allow_plaintext=settings.kafka_allow_plaintext,
        client_id=f"keytrail-core-{settings.service}",
    )
    emitter = Emitter(
        spool_dir=settings.spool_dir,
        signer=signer,
        deployment=registry.deployment,
        service=settings.service,
        transport=transport,
        partitions=settings.kafka_partitions,
        generation=settings.kafka_generation,
        durability=settings.durability,
        linger_ms=settings.linger_ms,
        heartbeat_s=settings.heartbeat_s,
        quota_bytes=settings.quota_bytes,
    )
    wrapper = AzureKeyWrapper(
        settings.kek_alias,
        vault_url=settings.kek_vault_url,
        key_name=settings.kek_name,
        credential=credential or process_credential(),
    )
    return CryptoCore(
        service=settings.service,
        deployment=registry.deployment,
        registry=registry,
        store=KeyStore(settings.store_url.get_secret_value(), registry=registry),
        wrappers={settings.kek_alias: wrapper},
        kek_alias=settings.kek_alias,
        emitter=emitter,
        key_signer=key_signer,
    )


def _sasl(settings: CoreSettings) -> dict[str, str]:
    if settings.kafka_sasl_username is None or settings.kafka_sasl_password is None:
        return {}
    return {
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
    }


def _check_signer(registry: Registry, signer: Signer, service: str) -> None:
    entry = registry.get(signer.signer_id)
    if entry is None or entry.source != service or Role.EVENTS not in entry.roles:
        raise ConfigurationError(f"the registry knows no signer {signer.signer_id.hex()} for the events of {service}")


def _problem(place: tuple[int | str, ...], message: str) -> str:
    name = "".join(f"KEYTRAIL_CORE_{part}".upper() for part in place[:1]) or "KEYTRAIL_CORE_*"
    return f"{name}: {message}"
