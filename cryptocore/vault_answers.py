"""Answers of a vault: what they gave, and what a failed one means. Nothing of the SDK is kept: it holds the request."""

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptocore.events import Reason, VaultAttempt
from cryptocore.lines.texts import is_request_id
from cryptocore.wrapping import VaultCallFailed

BELIEVED_RETRY_AFTER_S = 300.0

STATUS_REASONS = {
    401: Reason.VAULT_DENIED,
    403: Reason.VAULT_DENIED,
    404: Reason.VAULT_NOT_FOUND,
    429: Reason.VAULT_THROTTLED,
}
_RETRYABLE = frozenset({Reason.VAULT_THROTTLED, Reason.VAULT_UNREACHABLE, Reason.VAULT_ERROR})
_SERVER_ERRORS = 500


class Response(Protocol):
    """What is read of an HTTP answer."""

    @property
    def headers(self) -> Any:
        """Its headers, without regard to case."""

    @property
    def content(self) -> bytes:
        """Its body."""

    def json(self) -> Any:
        """Decode its body."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One attempt and what came of it: either a value and the key it was made with, or a reason."""

    attempt: VaultAttempt
    reason: Reason | None
    value: bytes
    kid: str
    retry_after_s: float | None
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def retryable(self) -> bool:
        status = self.attempt.http_status
        return self.reason in _RETRYABLE and (status is None or status == 429 or status >= _SERVER_ERRORS)  # noqa: PLR2004


def request_id(response: Response) -> str | None:
    """Read the id under which the vault logs the request; one that no event may carry counts as none."""
    found: str | None = response.headers.get("x-ms-request-id")
    return found if found is not None and is_request_id(found) else None


def retry_after(response: Response) -> float | None:
    """Read for how long the vault wants to be left alone."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), BELIEVED_RETRY_AFTER_S) if text.isascii() and text.isdecimal() else None


def failed(answer: Answer, made: tuple[VaultAttempt, ...]) -> VaultCallFailed:
    """Say that no attempt succeeded, with all of them."""
    assert answer.reason is not None
    return VaultCallFailed(answer.reason, made, retryable=answer.retryable, retry_after_s=answer.retry_after_s)


def read_key(response: Response, attempt: VaultAttempt) -> Answer:
    """Take value and kid out of a 200; an answer of another form is an error of the vault, not of ours."""
    try:
        content = response.json()
        if "key" in content:
            return Answer(attempt, None, b"", str(content["key"]["kid"]), None)
        text = content["value"]
        value = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return Answer(attempt, None, value, str(content["kid"]), None)
    except (ValueError, KeyError, TypeError, binascii.Error):
        return Answer(attempt, Reason.VAULT_ERROR, b"", "", None)


def read_document(response: Response, attempt: VaultAttempt) -> Answer:
    """Take the JSON of an administrative answer; there is none after a purge."""
    try:
        document = response.json() if response.content else {}
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return Answer(attempt, Reason.VAULT_ERROR, b"", "", None)
    return Answer(attempt, None, b"", "", None, document)
