"""Variables of the environment that say where the key store is and whom to believe: enough for whoever only looks."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from cryptocore.errors import ConfigurationError
from cryptocore.registry import Registry
from cryptocore.store.engine import StoreOptions
from cryptocore.store.key_store import KeyStore


class Variables(BaseSettings):
    """What every reader of the prefix `KEYTRAIL_CORE_` needs."""

    model_config = SettingsConfigDict(
        env_prefix="KEYTRAIL_CORE_", frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    registry_file: Path = Field(description="sources.json, as reviewed")

    @classmethod
    def load(cls) -> Self:
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


class StoreSettings(Variables):
    """Where the key store is."""

    store_url: SecretStr = Field(description="SQLAlchemy URL of the key store")
    store_allow_plaintext: bool = False
    store_pool_size: int = Field(default=5, ge=1, le=200, description="connections to PostgreSQL that are kept")
    store_statement_ms: int = Field(default=10_000, ge=100, le=600_000, description="for one statement")

    def store(self, registry: Registry) -> KeyStore:
        """Make the key store; it opens nothing yet.

        Raises:
            ConfigurationError: the URL is none, or the connection would not be protected.
        """
        options = StoreOptions(
            pool_size=self.store_pool_size,
            statement_ms=self.store_statement_ms,
            allow_plaintext=self.store_allow_plaintext,
        )
        return KeyStore(self.store_url.get_secret_value(), registry=registry, options=options)


def _problem(place: tuple[int | str, ...], message: str) -> str:
    name = "".join(f"KEYTRAIL_CORE_{part}".upper() for part in place[:1]) or "KEYTRAIL_CORE_*"
    return f"{name}: {message}"
