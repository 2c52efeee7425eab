"""Why a vault record is not taken: a closed list, the field, and a sentence that repeats no value of the record."""

from enum import StrEnum


class Reason(StrEnum):
    """What does not hold. Files and the vault step use the same words."""

    UNKNOWN_SHAPE = "unknown_shape"
    OTHER_RESOURCE = "other_resource"
    TIME = "time"
    OPERATION = "operation"
    STATUS = "status"
    IDENTITY = "identity"
    FOREIGN_HOST = "foreign_host"
    VAULT_MISMATCH = "vault_mismatch"
    NO_VAULT = "no_vault"
    OBJECT_MISSING = "object_missing"
    TOO_LONG = "too_long"
    TEXT = "text"
    MESSAGE = "message"


class VaultRecordRejected(Exception):
    """A record that cannot be read or must not be trusted."""

    def __init__(self, reason: Reason, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.reason = reason
        self.field = field
        self.problem = problem
