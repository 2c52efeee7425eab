"""The closed word lists of the audit event. A word that is not here is not in version 1."""

from enum import StrEnum


class Operation(StrEnum):
    """What was tried."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    REENCRYPT = "reencrypt"
    WRAP = "wrap"
    UNWRAP = "unwrap"
    CREATE = "create"
    ACTIVATE = "activate"
    ROTATE = "rotate"
    REWRAP = "rewrap"
    SUSPEND = "suspend"
    RESUME = "resume"
    REVOKE = "revoke"
    ARCHIVE = "archive"
    DESTROY = "destroy"
    TOKEN_STORE = "token.store"  # noqa: S105 - a word, not a secret
    TOKEN_USE = "token.use"  # noqa: S105 - a word, not a secret
    TOKEN_REGENERATE = "token.regenerate"  # noqa: S105 - a word, not a secret
    TOKEN_EXPIRE = "token.expire"  # noqa: S105 - a word, not a secret
    TOKEN_INVALIDATE = "token.invalidate"  # noqa: S105 - a word, not a secret
    SUMMARY = "summary"


class Outcome(StrEnum):
    """How it ended."""

    SUCCEEDED = "succeeded"
    DENIED = "denied"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Phase(StrEnum):
    """One event for a local act; an intent before and an outcome after a call that leaves the process."""

    SINGLE = "single"
    INTENT = "intent"
    OUTCOME = "outcome"


class Durability(StrEnum):
    """What a committed event survives: the loss of the process, or that of its disk too."""

    VOLUME = "volume"
    BROKER = "broker"


class Reason(StrEnum):
    """Why it was refused or broke, and, for acts of the life cycle, why somebody did it."""

    PARSE_ERROR = "parse_error"
    UNKNOWN_KEY = "unknown_key"
    OWNER_MISMATCH = "owner_mismatch"
    BAD_TAG = "bad_tag"
    KEY_STATE = "key_state"
    RECORD_INVALID = "record_invalid"
    RECORD_ROLLBACK = "record_rollback"
    VAULT_DENIED = "vault_denied"
    VAULT_NOT_FOUND = "vault_not_found"
    VAULT_THROTTLED = "vault_throttled"
    VAULT_UNREACHABLE = "vault_unreachable"
    VAULT_ERROR = "vault_error"
    KID_MISMATCH = "kid_mismatch"
    COMMITMENT_MISMATCH = "commitment_mismatch"
    RATE_LIMITED = "rate_limited"
    CRASHED = "crashed"
    SCHEDULED = "scheduled"
    TOKEN_REGENERATED = "token_regenerated"  # noqa: S105 - a word, not a secret
    COMPROMISE_SUSPECTED = "compromise_suspected"
    OWNERSHIP_CHANGED = "ownership_changed"
    OFFBOARDED = "offboarded"
    OPERATOR = "operator"


MOTIVES = frozenset(
    {
        Reason.SCHEDULED,
        Reason.TOKEN_REGENERATED,
        Reason.COMPROMISE_SUSPECTED,
        Reason.OWNERSHIP_CHANGED,
        Reason.OFFBOARDED,
        Reason.OPERATOR,
    },
)
"""Reasons that key records share: why a person or a schedule acted. The others say why an act did not succeed."""

VAULT_CALLS = frozenset({Operation.WRAP, Operation.UNWRAP})
DATA_USES = frozenset({Operation.ENCRYPT, Operation.DECRYPT, Operation.REENCRYPT})
TOKEN_ACTS = frozenset(operation for operation in Operation if operation.startswith("token."))
LIFE_CYCLE = (
    frozenset(
        {
            Operation.CREATE,
            Operation.ACTIVATE,
            Operation.ROTATE,
            Operation.REWRAP,
            Operation.SUSPEND,
            Operation.RESUME,
            Operation.REVOKE,
            Operation.ARCHIVE,
            Operation.DESTROY,
        },
    )
    | TOKEN_ACTS
) - {Operation.TOKEN_USE}
KEK_ACTS = LIFE_CYCLE - TOKEN_ACTS
"""Acts that a KEK, too, may undergo: its life is in the vault, so each of them is a call that the vault logs."""
