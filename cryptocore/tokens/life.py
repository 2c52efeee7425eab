"""Whether a token lives: what the database said of it and when, and what follows. Pure."""

from dataclasses import dataclass
from typing import Final

from cryptocore.audit import Refusal, no_arrow
from cryptocore.envelope import Owner
from cryptocore.errors import AccessDenied, TokenInvalid
from cryptocore.events import Outcome, Reason
from cryptocore.tokens.rows import TokenInfo, TokenRow
from cryptocore.wrapping import Secret

MAX_VALUE: Final = 64 * 1024
"""Bytes of a token's value."""
MAX_EXPIRY_MS: Final = 2**47


@dataclass(frozen=True, slots=True)
class Read:
    """What the database said of a token, when by its own clock, and when by ours."""

    row: TokenRow | None
    database_ms: int
    monotonic: float

    def now_ms(self, monotonic: float) -> int:
        """Give the database's time: what it was when asked, and what went by since, rounded up."""
        return self.database_ms + int((monotonic - self.monotonic) * 1000 + 1)

    def is_over(self, monotonic: float) -> bool:
        """Say whether the token's time is over."""
        return self.row is not None and self.now_ms(monotonic) >= self.row.info.expires_ms


def living(read: Read, monotonic: float) -> TokenRow:
    """Give the row of a token that may be used.

    Raises:
        Refusal: there is none, it ended, or its time is over.
    """
    row = read.row
    if row is None:
        raise Refusal(Outcome.DENIED, Reason.UNKNOWN_KEY, AccessDenied, "the owner has no such token")
    if row.info.ended_as is not None:
        raise over(row.info, f"was {row.info.ended_as}")
    if read.is_over(monotonic):
        raise over(row.info, "is past its expiry")
    return row


def over(info: TokenInfo, what: str) -> Refusal:
    """Refuse the use of a token that does not live."""
    return Refusal(Outcome.DENIED, Reason.KEY_STATE, AccessDenied, f"the token {what}", key=info.key)


def check_expiry(read: Read, expires_at_ms: int, monotonic: float) -> None:
    """Check that a token would live.

    Raises:
        Refusal: its time is over.
    """
    if expires_at_ms <= read.now_ms(monotonic):
        raise no_arrow("the time of the token is over already")


def check_value(value: Secret, expires_at_ms: int) -> None:
    """Check what is to be kept.

    Raises:
        TokenInvalid: it is beyond a limit.
    """
    if len(value.reveal()) > MAX_VALUE:
        raise TokenInvalid("value", f"longer than {MAX_VALUE} bytes")
    if not 0 < expires_at_ms < MAX_EXPIRY_MS:
        raise TokenInvalid("expires_at_ms", "not milliseconds since 1970")


def next_generation(owner: Owner, token_id: str, read: Read, expires_at_ms: int) -> TokenInfo:
    """Describe the generation that comes next; its key is known once it is encrypted."""
    return TokenInfo(
        owner=owner,
        token_id=token_id,
        generation=1 if read.row is None else read.row.info.generation + 1,
        key_id="",
        key_version=0,
        stored_ms=read.database_ms,
        expires_ms=expires_at_ms,
    )


def token_record(info: TokenInfo) -> str:
    """Name the place of a token's ciphertext; read from the right it is unambiguous, whatever the token's name."""
    return f"tokens/{info.token_id}/{info.generation}/exp/{info.expires_ms}"
