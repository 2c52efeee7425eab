"""What a worker must be told: one frozen object, read from KEYTRAIL_* once, and the only reader of the environment."""

import ssl
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, HttpUrl, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cryptocore.addresses import all_loopback
from cryptocore.partitions import MAX_PARTITIONS
from streams.messages import CORRELATE, FINDINGS, KEY_EVENTS, REJECTED, SOURCES, VAULT_ACCESS, WHO

GROWING: Final = (KEY_EVENTS, VAULT_ACCESS, CORRELATE, WHO)
"""Topics of many partitions: each generation has its own."""


SHORTEST_SECRET: Final = 16
"""Bytes of a secret that signs deliveries: 128 bits."""


class Settings(BaseSettings):
    """Where the log, the index and the registry are, and how much of the machine a worker may take."""

    model_config = SettingsConfigDict(env_prefix="KEYTRAIL_", frozen=True, extra="ignore", hide_input_in_errors=True)

    # The log
    kafka_bootstrap: str = "127.0.0.1:9092"
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    kafka_username: str | None = None
    kafka_password: SecretStr | None = None
    kafka_ca_file: Path | None = None
    kafka_client_certificate: Path | None = None
    kafka_client_key: Path | None = None
    kafka_allow_plaintext: bool = False
    """Without TLS to another machine: only where the network itself is trusted, as between containers of one host."""
    kafka_session_timeout_s: float = Field(default=15.0, ge=6)
    topic_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,80}$")
    topic_replication: int = Field(default=1, ge=1, le=32767)
    partitions: int = Field(default=8, ge=1, le=MAX_PARTITIONS)
    """Of key-events, vault-access, correlate and who; a fixed property of the generation (formats: sealed batch)."""
    generation: int = Field(default=1, ge=1, le=65535)
    app_id: str = Field(default="keytrail", pattern=r"^[A-Za-z0-9._-]{1,80}$")
    """Group of the workers and beginning of their transactional ids: two monitors on one log need two."""

    # The index
    elasticsearch_url: HttpUrl = HttpUrl("http://127.0.0.1:9200")
    elasticsearch_api_key: SecretStr | None = None
    elasticsearch_ca_file: Path | None = None
    index_prefix: str = Field(default="keytrail", pattern=r"^[a-z0-9][a-z0-9._-]{0,80}$")
    index_replicas: int = Field(default=1, ge=0, le=10)

    # Who may say what
    sources_file: Path = Path("sources.json")
    vaults_file: Path | None = None
    """vaults.toml (docs/vault-feeds.md); without it nobody judges which vaults are silent or undeclared."""
    allowed_file: Path | None = None
    """allowed.toml (docs/vault-feeds.md); without it every use of a KEK by a stranger alerts."""

    decoy_keys: tuple[Annotated[str, Field(pattern="^[0-9a-f]{32}$")], ...] = ()
    """A JSON list of key ids: keys that no service uses, so that any use of one is critical (docs/incidents.md)."""

    # Deliveries
    webhook_url: HttpUrl | None = None
    webhook_secret: SecretStr | None = None
    apprise_urls: tuple[SecretStr, ...] = ()
    """A JSON list; each names a chat, mail or paging service in Apprise's way."""

    # The canary (docs/operations.md): from the monitor to the canary, and from the canary to somebody outside
    canary_route: HttpUrl | None = None
    """Where workers deliver canaries: the canary's own address, as workers reach it."""
    canary_secret: SecretStr | None = None
    canary_beat_url: HttpUrl | None = None
    """Called by the canary while every part answers: a dead man's switch outside."""
    canary_host: str = "127.0.0.1"
    canary_port: int = Field(default=6067, ge=0, le=65535)
    canary_every_s: float = Field(default=60, ge=1, le=600)

    # The process
    production: bool = False
    """In earnest: `keytrail doctor` then wants what a trial may lack."""
    data_dir: Path = Path("keytrail-worker")
    buffer_bytes: int = Field(default=256 * 1024 * 1024, ge=16 * 1024 * 1024)
    """Memory for messages that were fetched and not applied yet, if every one were as large as allowed."""
    web_host: str = "127.0.0.1"
    """Where /healthz, /readyz and /metrics are served; another address than loopback is for a pod's own network."""
    web_port: int = Field(default=6066, ge=0, le=65535)
    """0 picks a free one."""
    stop_s: float = Field(default=10.0, gt=0)
    """SIGTERM to the end of the process, at most."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _whole(self) -> "Settings":
        if self.kafka_security_protocol.startswith("SASL") and (self.kafka_username is None or not self.kafka_password):
            raise ValueError("KEYTRAIL_KAFKA_USERNAME and KEYTRAIL_KAFKA_PASSWORD are needed for SASL")
        exposed = self.kafka_security_protocol in ("PLAINTEXT", "SASL_PLAINTEXT") and not all_loopback(
            self.kafka_bootstrap
        )
        if exposed and not self.kafka_allow_plaintext:
            raise ValueError(
                "KEYTRAIL_KAFKA_SECURITY_PROTOCOL is without TLS and the broker is another machine: "
                "use SSL or SASL_SSL, or say KEYTRAIL_KAFKA_ALLOW_PLAINTEXT=true"
            )
        if (self.webhook_url is None) != (self.webhook_secret is None):
            raise ValueError("KEYTRAIL_WEBHOOK_URL and KEYTRAIL_WEBHOOK_SECRET come together: deliveries are signed")
        if self.canary_route is not None and self.canary_secret is None:
            raise ValueError("KEYTRAIL_CANARY_ROUTE needs KEYTRAIL_CANARY_SECRET: deliveries are signed")
        for name, secret in (("WEBHOOK", self.webhook_secret), ("CANARY", self.canary_secret)):
            if secret is not None and len(secret.get_secret_value().encode()) < SHORTEST_SECRET:
                raise ValueError(f"KEYTRAIL_{name}_SECRET has fewer than {SHORTEST_SECRET} bytes")
        return self

    def generation_of(self, name: str) -> int:
        """The generation of a topic: 1 for those that never get more partitions."""
        return self.generation if name in GROWING else 1

    def topic(self, name: str) -> str:
        """Full name of a topic; those of many partitions carry their generation from the second on."""
        generation = self.generation_of(name)
        return self.topic_prefix + (name if generation == 1 else f"{name}.g{generation}")

    def state_topic(self, name: str) -> str:
        """Full name of the state topic of an input."""
        return self.topic_prefix + "keytrail.state." + self.topic(name).removeprefix(self.topic_prefix)

    @property
    def topic_partitions(self) -> dict[str, int]:
        """Partition count of every topic that workers read or write, by its name without the prefix."""
        many = dict.fromkeys(GROWING, self.partitions)
        return many | dict.fromkeys((SOURCES, FINDINGS, REJECTED), 1)

    def tls(self) -> ssl.SSLContext | None:
        """TLS 1.2 or later towards the log, or None where the protocol has none."""
        if not self.kafka_security_protocol.endswith("SSL"):
            return None
        context = ssl.create_default_context(cafile=None if self.kafka_ca_file is None else str(self.kafka_ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.kafka_client_certificate is not None:
            context.load_cert_chain(self.kafka_client_certificate, self.kafka_client_key)
        return context

    def kafka_connection(self) -> dict[str, Any]:
        """Arguments of every aiokafka client of ours."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.kafka_bootstrap,
            "security_protocol": self.kafka_security_protocol,
            "ssl_context": self.tls(),
        }
        if self.kafka_security_protocol.startswith("SASL"):
            assert self.kafka_password is not None
            arguments |= {
                "sasl_mechanism": self.kafka_sasl_mechanism,
                "sasl_plain_username": self.kafka_username,
                "sasl_plain_password": self.kafka_password.get_secret_value(),
            }
        return arguments
