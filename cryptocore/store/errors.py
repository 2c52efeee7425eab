"""What a failure of the database means to a caller: whether trying again can help, in words without any value.

The driver's own text is never handed on: it can hold rows, names and addresses.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cryptocore.errors import Failed, KeyUnavailable

MIGRATE: Final = "run `keytrail store migrate`"

_STATES: Final[dict[str, tuple[str, bool]]] = {
    "25006": ("the server is read-only: a replica, or a failover under way", True),
    "25P03": ("a transaction waited too long", True),
    "3D000": ("there is no such database", False),
    "3F000": (f"its schema is missing: {MIGRATE}", False),
    "40001": ("another transaction was faster", True),
    "40P01": ("two transactions waited for each other", True),
    "42501": ("the database user may not do this: grant it keytrail_use or keytrail_admin", False),
    "42703": (f"its schema is older than this program: {MIGRATE}", False),
    "42P01": (f"its schema is missing or older than this program: {MIGRATE}", False),
    "53100": ("the database's disk is full", True),
    "53300": ("the server has no connection left", True),
    "55P03": ("another transaction holds the rows", True),
    "57014": ("a statement took too long", True),
}
"""By SQLSTATE: what it says, and whether it is worth another try."""
_CLASSES: Final[dict[str, tuple[str, bool]]] = {
    "08": ("the connection was lost", True),
    "28": ("the database refused the user", False),
    "40": ("the transaction was rolled back", True),
    "53": ("the server is short of something", True),
    "55": ("something is in use", True),
    "57": ("the server ended the connection", True),
    "58": ("the server's own system failed", True),
}
_SQLITE: Final[dict[int, tuple[str, bool]]] = {
    1: ("the database is not one of this program", False),
    3: ("the file may not be used", False),
    5: ("another process holds the database", True),
    6: ("another connection holds the table", True),
    8: ("the file cannot be written", False),
    10: ("the disk failed", True),
    11: ("the file is damaged", False),
    13: ("the disk is full", True),
    14: ("the file cannot be opened", True),
    26: ("the file is no database", False),
}
_WRONG: Final = (
    ("authentication", "the database refused the user"),
    ("pg_hba.conf", "the database refuses this address or user"),
    ("does not exist", "there is no such database or user"),
    ("permission denied", "the database user may not connect"),
    ("no password", "the database asks for a password"),
    ("certificate", "the server's certificate does not hold"),
    ("does not support SSL", "the server does not speak TLS"),
    ("sslmode", "the TLS settings of the URL cannot be used"),
)
"""What libpq says when a connection is refused for good; it has no SQLSTATE for that."""


class StoreConflict(Failed):
    """Somebody else changed the same key version, or gave the owner another newest one, meanwhile."""

    def __init__(self) -> None:
        super().__init__("the key was changed meanwhile", retryable=True)


@contextlib.contextmanager
def errors_of_the_store() -> Iterator[None]:
    """Turn what the database raises into errors of ours, without any value of a row.

    Raises:
        StoreConflict: a rule of the tables refused it.
        KeyUnavailable: the store does not answer, or may not.
    """
    try:
        yield
    except IntegrityError:
        raise StoreConflict from None
    except SQLAlchemyError as err:
        raise unavailable(err) from None


def unavailable(error: SQLAlchemyError) -> KeyUnavailable:
    """Say what an error of the database means."""
    says, retryable = _meaning(error)
    return KeyUnavailable(f"the key store failed: {says}", retryable=retryable)


def _meaning(error: SQLAlchemyError) -> tuple[str, bool]:
    if isinstance(error, PoolTimeout):
        return "all of its connections are in use", True
    if not isinstance(error, DBAPIError):
        return type(error).__name__, False
    orig: Any = error.orig
    code = getattr(orig, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE.get(code & 0xFF, (type(error).__name__, True))
    state = getattr(orig, "sqlstate", None)
    if state is not None:
        return _STATES.get(state) or _CLASSES.get(state[:2]) or (f"{type(error).__name__} {state}", False)
    text = str(orig)
    for sign, says in _WRONG:
        if sign in text:
            return says, False
    return "it does not answer", True
