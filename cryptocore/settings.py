"""What a service sets in its environment, `KEYTRAIL_CORE_*`, and the core that is made of it.

Nothing insecure can be reached from here: no local KEK, no vault that is none of Azure's, no plaintext to another
machine unless it is allowed by name.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from cryptocore.batch import ID_SIZE
from cryptocore.clock import SystemClock
from cryptocore.emitter import HEARTBEAT_S, LINGER_MS, QUOTA_BYTES, Emitter, Transport
from cryptocore.errors import ConfigurationError
from cryptocore.keks.vault import NamedKek
from cryptocore.keystate import KeyStateTopic
from cryptocore.lines.texts import SERVICE
from cryptocore.lines.vocabulary import Durability
from cryptocore.partitions import MAX_PARTITIONS
from cryptocore.purposes import Purposes
from cryptocore.registry import Registry, Role
from cryptocore.signing import Signer
from cryptocore.spool.file import Identity
from cryptocore.spool.orphans import Orphans
from cryptocore.store_settings import StoreSettings, Variables
from cryptocore.throttle import BURST, RATE_PER_S, RESERVE, VaultBudget

if TYPE_CHECKING:
    from cryptocore.core import CryptoCore


class EmitterSettings(Variables):
    """What it takes to leave events: who, signed by what, into which spool and topic. Prefix `KEYTRAIL_CORE_`."""

    service: str = Field(pattern=f"^{SERVICE}$", description="the source that the signer speaks for")
    spool_dir: Path = Field(description="on a disk that outlives the process, unless durability is broker")
    signer_file: Path = Field(description="private key of the service, mode 0600")
    purposes: Path | None = Field(default=None, description="purposes.toml, as reviewed; else any purpose is taken")

    kafka_bootstrap: str = Field(description="host:port, comma-separated")
    kafka_topic: str = "key-events"
    kafka_partitions: int = Field(default=8, ge=1, le=MAX_PARTITIONS)
    kafka_generation: int = Field(default=1, ge=0, le=65_535)
    kafka_security_protocol: Literal["SASL_SSL", "SSL", "PLAINTEXT"] = "SASL_SSL"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ca_file: Path | None = None
    kafka_allow_plaintext: bool = False
    kafka_compression: Literal["none", "gzip", "lz4", "zstd"] = "none"

    durability: Durability = Durability.VOLUME
    linger_ms: int = Field(default=LINGER_MS, ge=0, le=10_000)
    heartbeat_s: float = Field(default=HEARTBEAT_S, gt=0, le=60)
    quota_bytes: int = Field(default=QUOTA_BYTES, ge=1024 * 1024)

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if (self.kafka_sasl_username is None) != (self.kafka_sasl_password is None):
            raise ValueError("kafka_sasl_username and kafka_sasl_password go together")
        return self


class CoreSettings(EmitterSettings, StoreSettings):
    """What a core needs beside: keys, the KEK, and how much of its vault may be used."""

    key_state_topic: str | None = Field(default=None, description="on which revocations reach every process at once")
    key_signer_file: Path | None = Field(default=None, description="private key with role keys; else signer_file")

    kek_alias: str = Field(description="named in key records; pinned to the vault and key below")
    kek_vault_url: str = Field(description="https://<name>.vault.azure.net or another of Azure's suffixes")
    kek_name: str
    more_keks: dict[str, NamedKek] = Field(
        default={}, description='KEKs beside it, by alias: {"old":{"vault_url":"https://…","name":"…"}}'
    )

    vault_rate_per_s: float = Field(default=RATE_PER_S, gt=0, le=10_000)
    vault_burst: int = Field(default=BURST, ge=2, le=100_000)
    vault_reserve: int = Field(default=RESERVE, ge=0, le=10_000)

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.vault_reserve >= self.vault_burst:
            raise ValueError("vault_reserve is part of vault_burst, and less")
        if self.kek_alias in self.more_keks:
            raise ValueError("more_keks names the alias of kek_alias again")
        return self

    @property
    def keks(self) -> dict[str, NamedKek]:
        """Every KEK by its alias, that of new keys first."""
        return {self.kek_alias: NamedKek(vault_url=self.kek_vault_url, name=self.kek_name), **self.more_keks}


def build(settings: CoreSettings, *, credential: Any = None, token_provider: Any = None) -> "CryptoCore":
    """Make a core that opens nothing before its first use.

    Args:
        settings: as read.
        credential: an async Azure credential; None takes the process's own identity (DefaultAzureCredential).
        token_provider: of aiokafka, for OAUTHBEARER; None takes user name and password.

    Raises:
        ConfigurationError: the settings contradict each other or the registry.
        RegistryInvalid, PurposesInvalid: a file cannot be used.
    """
    from cryptocore.azure import AzureKeyWrapper, process_credential  # noqa: PLC0415 - the extra `azure`
    from cryptocore.core import CryptoCore  # noqa: PLC0415 - which has from_env

    registry = Registry.load(settings.registry_file)
    emitter = build_emitter(settings, registry, token_provider=token_provider)
    key_signer = Signer.from_file(settings.key_signer_file or settings.signer_file)
    if settings.key_signer_file is not None:
        _check_role("KEYTRAIL_CORE_KEY_SIGNER_FILE", registry, key_signer, settings.service, Role.KEYS)
    wrappers = {
        alias: AzureKeyWrapper(
            alias, vault_url=kek.vault_url, key_name=kek.name, credential=credential or process_credential
        )
        for alias, kek in settings.keks.items()
    }
    store = settings.store(registry)

    async def let_go() -> None:
        for wrapper in wrappers.values():
            await wrapper.close()
        store.close()

    return CryptoCore(
        service=settings.service,
        deployment=registry.deployment,
        registry=registry,
        store=store,
        wrappers=wrappers,
        kek_alias=settings.kek_alias,
        emitter=emitter,
        key_signer=key_signer,
        purposes=declared_purposes(settings),
        vault_budget=VaultBudget(
            rate_per_s=settings.vault_rate_per_s, burst=settings.vault_burst, reserve=settings.vault_reserve
        ),
        key_states=_key_states(settings, token_provider),
        let_go=let_go,
    )


def build_emitter(settings: EmitterSettings, registry: Registry, *, token_provider: Any = None) -> Emitter:
    """Make an emitter to Kafka; it opens nothing yet.

    Raises:
        ConfigurationError: the settings contradict each other or the registry.
    """
    signer = _signer(settings, registry)
    return Emitter(
        spool_dir=settings.spool_dir,
        signer=signer,
        deployment=registry.deployment,
        service=settings.service,
        transport=build_transport(settings, token_provider=token_provider),
        partitions=settings.kafka_partitions,
        generation=settings.kafka_generation,
        durability=settings.durability,
        linger_ms=settings.linger_ms,
        heartbeat_s=settings.heartbeat_s,
        quota_bytes=settings.quota_bytes,
    )


def build_orphans(settings: EmitterSettings) -> tuple[Orphans, Transport]:
    """Make what `keytrail drain` works with.

    Raises:
        ConfigurationError: the settings contradict each other or the registry.
        RegistryInvalid: the registry file cannot be used.
    """
    registry = Registry.load(settings.registry_file)
    signer = _signer(settings, registry)
    transport = build_transport(settings)
    identity = Identity(
        settings.service,
        registry.deployment,
        os.urandom(ID_SIZE),
        settings.kafka_generation,
        settings.kafka_partitions,
        settings.durability,
    )
    orphans = Orphans(
        settings.spool_dir, identity=lambda: identity, signer=signer, transport=transport, clock=SystemClock()
    )
    return orphans, transport


def build_transport(settings: EmitterSettings, *, token_provider: Any = None) -> Transport:
    """Make the way to Kafka; it connects when the first batch is sent.

    Raises:
        ConfigurationError: the settings do not protect the connection, or their compression needs a package.
    """
    from cryptocore.kafka import KafkaTransport  # noqa: PLC0415 - the extra `kafka`

    return KafkaTransport(
        topic=settings.kafka_topic,
        partitions=settings.kafka_partitions,
        compression=settings.kafka_compression,
        **_kafka(settings, token_provider),
    )


def declared_purposes(settings: EmitterSettings) -> Purposes | None:
    """Read the file of purposes, if there is to be one.

    Raises:
        PurposesInvalid: it cannot be used.
    """
    return None if settings.purposes is None else Purposes.load(settings.purposes)


def _signer(settings: EmitterSettings, registry: Registry) -> Signer:
    signer = Signer.from_file(settings.signer_file)
    _check_role("KEYTRAIL_CORE_SIGNER_FILE", registry, signer, settings.service, Role.EVENTS)
    return signer


def _key_states(settings: CoreSettings, token_provider: Any) -> KeyStateTopic | None:
    if settings.key_state_topic is None:
        return None
    from cryptocore.kafka import connection  # noqa: PLC0415 - the extra `kafka`
    from cryptocore.keystate_kafka import KafkaKeyStates  # noqa: PLC0415 - the same

    return KafkaKeyStates(connection(**_kafka(settings, token_provider)), settings.key_state_topic)


def _kafka(settings: EmitterSettings, token_provider: Any) -> dict[str, Any]:
    """Say how to connect, in the arguments of `kafka.connection`."""
    from cryptocore.kafka import tls_context  # noqa: PLC0415 - the extra `kafka`

    return {
        "bootstrap": settings.kafka_bootstrap,
        "security_protocol": settings.kafka_security_protocol,
        "ssl_context": tls_context(settings.kafka_ca_file),
        "sasl": _sasl(settings),
        "token_provider": token_provider,
        "allow_plaintext": settings.kafka_allow_plaintext,
        "client_id": f"keytrail-core-{settings.service}",
    }


def _sasl(settings: EmitterSettings) -> dict[str, str]:
    if settings.kafka_sasl_username is None or settings.kafka_sasl_password is None:
        return {}
    return {
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
    }


def _check_role(setting: str, registry: Registry, signer: Signer, service: str, role: Role) -> None:
    """Refuse a signer that could not say what the service is to say; whether it is valid now is judged at each use."""
    entry, who = registry.get(signer.signer_id), f"{setting}: signer {signer.signer_id.hex()}"
    if entry is None:
        raise ConfigurationError(f"{who} is unknown to the registry")
    if entry.source != service:
        raise ConfigurationError(f"{who} is registered for {entry.source}, not for {service}")
    if role not in entry.roles:
        raise ConfigurationError(f"{who} has not the role {role} of {service} in the registry")
