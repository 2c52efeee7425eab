"""What an error of the Log Analytics API means: wait how long, no such table, or give up."""

import math
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError, ServiceResponseError

from cryptocore.clock import EPOCH, Clock

LONGEST_S: Final = 300.0
_TOO_MANY: Final = 429
_TIMED_OUT: Final = 408
_SERVER_ERROR: Final = 500
_BAD_REQUEST: Final = 400
_FIRST_S: Final = 1.0
_MOST_DOUBLINGS: Final = 10
_NO_SUCH_NAME: Final = "SEM0100"


def wait_s(problem: Exception, attempt: int, clock: Clock) -> float | None:
    """Say how many seconds to wait before asking again; None: asking again is of no use.

    The service's Retry-After is followed, as seconds or as a date; otherwise the wait doubles. An answer that is no
    JSON (a gateway's page) is an outage: the client raises ValueError for it.
    """
    backoff = min(_FIRST_S * float(1 << min(attempt, _MOST_DOUBLINGS)), LONGEST_S)
    if isinstance(problem, ServiceRequestError | ServiceResponseError | ValueError):
        return backoff
    status = problem.status_code if isinstance(problem, HttpResponseError) else None
    if status is None or (status not in {_TOO_MANY, _TIMED_OUT} and status < _SERVER_ERROR):
        return None
    response: Any = problem.response if isinstance(problem, HttpResponseError) else None
    told = None if response is None else _told(str(response.headers.get("Retry-After", "")), clock)
    return backoff if told is None else told


def _told(text: str, clock: Clock) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        seconds = (at - EPOCH).total_seconds() - clock.now_us() / 1_000_000
    return min(max(seconds, 0.0), LONGEST_S) if math.isfinite(seconds) else None


def is_absent(problem: Exception, table: str) -> bool:
    """Tell whether the workspace does not know the table: one that never got a row does not exist."""
    if not isinstance(problem, HttpResponseError) or problem.status_code != _BAD_REQUEST:
        return False
    body: Any = problem.response.text() if problem.response is not None else ""
    return _NO_SUCH_NAME in body and f"'{table}'" in body


def refusal(problem: Exception) -> str | None:
    """Say in a line why Azure refused for good; None for an error that is not Azure's.

    The error's own text may be many lines, and may cite the request.
    """
    if not isinstance(problem, AzureError):
        return None
    status = problem.status_code if isinstance(problem, HttpResponseError) else None
    code = getattr(getattr(problem, "error", None), "code", None)
    first = (problem.message or "").strip().partition("\n")[0][:200]
    parts = (type(problem).__name__, None if status is None else f"HTTP {status}", code, first)
    return ", ".join(str(part) for part in parts if part)
