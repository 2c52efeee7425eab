"""Nothing yet."""

revision = "0004_incidents"
down_revision: str | None = "0003_tokens"


def upgrade() -> None:
    """Nothing yet."""
