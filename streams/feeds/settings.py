"""What the feeds must be told about where they read; where they write is in streams.settings (KEYTRAIL_*)."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, HttpUrl, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from cryptocore.errors import ConfigurationError

KAFKA_PORT: Final = 9093
"""Of the Kafka surface of every Event Hubs namespace."""
Table = Literal["AZKVAuditLogs", "AzureDiagnostics", "AzureActivity"]


class FeedSettings(BaseSettings):
    """Read from KEYTRAIL_FEED_*; each feed asks for what it needs and names what is missing."""

    model_config = SettingsConfigDict(
        env_prefix="KEYTRAIL_FEED_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    state_dir: Path = Path("keytrail-feed")
    """Where positions are kept. A feed that loses it reads again what it has read; copies count once."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    # Event Hubs: a connection string, or the identity of this machine (azure-identity) and the namespace's address
    eventhub_connection_string: SecretStr | None = None
    eventhub_bootstrap: str | None = None
    eventhub_name: str | None = None
    eventhub_group: str = Field(default="keytrail", min_length=1)
    eventhub_ca_file: Path | None = None

    # Log Analytics
    workspace_id: str | None = None
    log_analytics_endpoint: HttpUrl = HttpUrl("https://api.loganalytics.io")
    tables: tuple[Table, ...] = ("AZKVAuditLogs", "AzureDiagnostics", "AzureActivity")
    poll_s: float = Field(default=60, ge=5)
    overlap_s: int = Field(default=600, ge=60)
    """How far each poll looks back behind its cursor: rows appear some time after their ingestion time."""
    look_back_s: int = Field(default=86_400, ge=0)
    """How far the first poll of all looks back."""
    window_s: int = Field(default=3_600, ge=60)
    page_rows: int = Field(default=20_000, ge=1, le=500_000)

    # Files
    files_poll_s: float = Field(default=5, gt=0)

    def needed(self, name: str) -> str:
        """Return a setting that must be there.

        Raises:
            ConfigurationError: it is not; the message names the variable.
        """
        value = getattr(self, name)
        if not value:
            raise ConfigurationError(f"KEYTRAIL_FEED_{name.upper()} is not set")
        return str(value)

    def hub(self) -> tuple[str, str]:
        """Return `host:port` of the namespace and the name of the hub, from the settings or the connection string.

        Raises:
            ConfigurationError: neither says it.
        """
        parts = self._connection_parts()
        bootstrap = self.eventhub_bootstrap
        if bootstrap is None and "endpoint" in parts:
            host = parts["endpoint"].partition("://")[2].strip("/").partition(":")[0]
            bootstrap = f"{host}:{KAFKA_PORT}"
        name = self.eventhub_name or parts.get("entitypath")
        if not bootstrap:
            raise ConfigurationError("KEYTRAIL_FEED_EVENTHUB_BOOTSTRAP is not set, and no connection string names it")
        if not name:
            raise ConfigurationError("KEYTRAIL_FEED_EVENTHUB_NAME is not set, and no connection string has EntityPath")
        return bootstrap, name

    def _connection_parts(self) -> dict[str, str]:
        if self.eventhub_connection_string is None:
            return {}
        pairs = (part.partition("=") for part in self.eventhub_connection_string.get_secret_value().split(";"))
        return {name.strip().lower(): value.strip() for name, _, value in pairs}
