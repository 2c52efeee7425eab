"""Every error that cryptocore raises, in one tree.

    CoreError
    ├── Denied                  policy said no; never retry
    │   ├── DecryptionFailed    bad ciphertext, unknown key, wrong owner or bad tag: one error, on purpose
    │   ├── AccessDenied        the key's state forbids the operation, or the vault refused
    │   └── KeyRecordRollback   the store shows an older revision than this process has seen
    ├── Failed                  something broke; `.retryable` says whether to try again
    │   ├── KeyUnavailable      the vault or the key store did not answer, or its answer was not to be trusted
    │   └── AuditUnavailable    the event could not be made durable, so the result was not handed out
    ├── Misuse                  the caller is wrong
    │   ├── MissingActor
    │   ├── MissingPurpose
    │   ├── UnknownPurpose      the purpose is not declared, or not for this service
    │   ├── NotClaimable        a service tells of an act that only key records vouch for
    │   ├── WrongEventLoop      a blocking call on an event loop, or a core that is open on another one
    │   ├── InvalidTransition   the life cycle has no such arrow
    │   └── ConfigurationError
    └── FormatError             bytes that docs/formats.md does not allow; `.field` names the place
        ├── EnvelopeInvalid
        ├── RecordInvalid
        ├── EventInvalid
        ├── BatchRejected       `.finding` is the name under which the monitor reports it
        ├── TokenInvalid        a token's name, value or expiry is beyond its limits
        ├── RegistryInvalid
        ├── TermsInvalid
        └── PurposesInvalid

Errors raised near key material are raised `from None` (formats.md, "Secrets do not leak through errors").
"""

from functools import partial
from typing import Any


class CoreError(Exception):
    """Anything that cryptocore raises."""

    retryable = False


class Denied(CoreError):
    """Policy said no; trying again changes nothing."""


class DecryptionFailed(Denied):
    """The ciphertext cannot be opened; the audit event knows why, the caller does not."""


class AccessDenied(Denied):
    """The key's state, or the vault, forbids this operation."""


class KeyRecordRollback(Denied):
    """The store shows an older revision of a key record than this process has already seen."""


class Failed(CoreError):
    """Something broke."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross a process border as what it is, as in a task's result."""
        return partial(type(self), retryable=self.retryable), self.args


class KeyUnavailable(Failed):
    """The DEK could not be had: vault or store did not answer, or the answer was not to be trusted."""


class AuditUnavailable(Failed):
    """The audit event could not be made durable; no result was handed out."""


class Misuse(CoreError):
    """The caller is wrong; fix the call."""


class MissingActor(Misuse):
    """No actor was given and none is in context."""


class MissingPurpose(Misuse):
    """No purpose was given and none is in context."""


class UnknownPurpose(Misuse):
    """The purpose is not declared in the file of purposes, or not for this service."""


class NotClaimable(Misuse):
    """A service that keeps its own cryptography tells of an operation that is not its to claim."""


class WrongEventLoop(Misuse):
    """A blocking call on a running event loop, or a call on another loop than the one the core was opened on."""


class InvalidTransition(Misuse):
    """The key's life cycle has no such transition."""


class ConfigurationError(Misuse):
    """A setting is missing, contradicts another, or is not allowed here."""


class FormatError(CoreError):
    """Bytes that the format does not allow."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross a process border as what it is."""
        return type(self), (self.field, self.problem)


class EnvelopeInvalid(FormatError):
    """Not an envelope of version 1."""


class RecordInvalid(FormatError):
    """Not a key record of version 1, or its signature does not hold."""


class EventInvalid(FormatError):
    """A line that is no event of version 1."""


class TokenInvalid(FormatError):
    """A token's name, value or expiry that the vault of tokens does not take."""


class RegistryInvalid(FormatError):
    """The signer registry file cannot be used."""


class TermsInvalid(FormatError):
    """The file of cryptoperiods and due dates cannot be used."""


class PurposesInvalid(FormatError):
    """The file of purposes cannot be used."""


class BatchRejected(FormatError):
    """A sealed batch that must not be applied; `finding` is its name among the monitor's findings."""

    def __init__(self, finding: str, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.finding = finding

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross a process border as what it is."""
        return type(self), (self.finding, self.field, self.problem)
