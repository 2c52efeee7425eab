"""Nothing yet."""

revision = "0002_rotations"
down_revision: str | None = "0001_keys"


def upgrade() -> None:
    """Nothing yet."""
