"""What an error of the core means to whoever sent the request: one status, never the text."""

from typing import Final

from cryptocore.errors import AccessDenied, CoreError, DecryptionFailed, Failed, InvalidTransition

CONFLICT: Final = 409
UNPROCESSABLE: Final = 422
SERVER_ERROR: Final = 500
UNAVAILABLE: Final = 503


def http_status(error: CoreError) -> int:
    """Choose the status: 503 where trying again may help, 409 and 422 where a person must look, else 500."""
    if isinstance(error, Failed):
        return UNAVAILABLE if error.retryable else SERVER_ERROR
    if isinstance(error, AccessDenied | InvalidTransition):
        return CONFLICT
    return UNPROCESSABLE if isinstance(error, DecryptionFailed) else SERVER_ERROR
