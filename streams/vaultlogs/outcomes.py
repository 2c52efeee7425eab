"""How an operation ended: by its HTTP status, then by the words of resultSignature, never by resultType.

`resultType` says "Success" on every record of the audit log, on 401, 403, 404 and 409 too.
"""

from enum import StrEnum
from http import HTTPStatus
from typing import Final

from alerts.model import AccessOutcome
from streams.vaultlogs.fields import Fields, truth, whole_number
from streams.vaultlogs.rejection import Reason, VaultRecordRejected

_BY_PHRASE: Final = {status.phrase.lower().replace(" ", ""): status.value for status in HTTPStatus}
"""Key Vault writes "Not Found", ARM writes "NotFound"."""


class Denial(StrEnum):
    """Why access was denied, as far as the record tells."""

    UNAUTHENTICATED = "unauthenticated"
    KEY_DISABLED = "key_disabled"
    KEY_OPERATION = "key_operation"
    PUBLIC_NETWORK = "public_network"
    FIRST_PARTY = "first_party"
    FIREWALL = "firewall"
    ACCESS_POLICY = "access_policy"
    RBAC = "rbac"
    UNKNOWN_403 = "unknown_403"


_SAYS: Final = (
    ("not allowed on a disabled key", Denial.KEY_DISABLED),
    ("not permitted on this key", Denial.KEY_OPERATION),
    ("public network access is disabled", Denial.PUBLIC_NETWORK),
    ("first party service", Denial.FIRST_PARTY),
)


def http_status(value: object) -> int | None:
    """Read a status code; None where the record has none.

    Raises:
        VaultRecordRejected: there is something that is no status code.
    """
    if value is None or (isinstance(value, str) and value in {"", "None"}):
        return None
    status = whole_number(value)
    if status is None or not 100 <= status <= 599:  # noqa: PLR2004 - RFC 9110
        raise VaultRecordRejected(Reason.STATUS, "httpStatusCode", "no HTTP status code")
    return status


def status_of_phrase(signature: str | None) -> int | None:
    """Return the status that the words of a signature stand for ("Not Found", "Succeeded.Created", "403")."""
    if signature is None:
        return None
    last = signature.rpartition(".")[2].replace(" ", "").lower()
    number = whole_number(last)
    return number if number is not None and 100 <= number <= 599 else _BY_PHRASE.get(last)  # noqa: PLR2004


def outcome_of(status: int) -> AccessOutcome:
    """Judge a status; a 401 is taken for a denial here, since challenges never come this far."""
    if 200 <= status < 300:  # noqa: PLR2004 - the class of success
        return AccessOutcome.SUCCEEDED
    if status in {401, 403}:
        return AccessOutcome.DENIED
    if status == 404:  # noqa: PLR2004
        return AccessOutcome.NOT_FOUND
    return AccessOutcome.THROTTLED if status == 429 else AccessOutcome.FAILED  # noqa: PLR2004


def denial_of(status: int, fields: Fields) -> Denial | None:
    """Tell the kinds of 403 apart: what the sentence says first, since it is the more precise, then the flags."""
    if status == 401:  # noqa: PLR2004
        return Denial.UNAUTHENTICATED
    if status != 403:  # noqa: PLR2004
        return None
    sentence = fields.description.lower()
    for words, denial in _SAYS:
        if words in sentence:
            return denial
    for flag, denial in (
        (fields.address_authorized, Denial.FIREWALL),
        (fields.policy_match, Denial.ACCESS_POLICY),
        (fields.rbac_authorized, Denial.RBAC),
    ):
        if truth(flag) is False:
            return denial
    return Denial.UNKNOWN_403
