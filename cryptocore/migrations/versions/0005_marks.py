"""A destruction that was called off stays so."""

from cryptocore.migrations import guard

revision = "0005_marks"
down_revision: str | None = "0004_incidents"

_FINAL = " OR ".join(
    (
        "(OLD.restored_ms IS NOT NULL AND NEW.restored_ms IS DISTINCT FROM OLD.restored_ms)",
        *(
            f"NEW.{column} <> OLD.{column}"
            for column in ("destruction_id", "request", "signature", "signer_id", "due_ms")
        ),
    )
)


def upgrade() -> None:
    """Make the guard of destructions."""
    why = "a destruction keeps its request, and called off it stays so"
    guard("destruction", "destruction_final", "UPDATE", why, when=_FINAL)
