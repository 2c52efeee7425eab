"""Nothing yet."""

revision = "0001_keys"
down_revision: str | None = None


def upgrade() -> None:
    """Nothing yet."""
