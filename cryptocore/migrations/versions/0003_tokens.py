"""Nothing yet."""

revision = "0003_tokens"
down_revision: str | None = "0002_rotations"


def upgrade() -> None:
    """Nothing yet."""
