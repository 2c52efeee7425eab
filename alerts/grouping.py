"""Which findings are the same thing: fingerprint, finding id, alert id.

No clock of ours and no count goes into them, so a replay names everything as the live run did.
"""

import hashlib

from alerts.model import Finding

_FINGERPRINT = b"keytrail/fingerprint/v1\x00"
_FINDING = b"keytrail/finding/v1\x00"


def fingerprint(finding: Finding) -> bytes:
    """Return the 32 bytes that all hits of one cause share: rule, tenant, key, principal (missing = empty)."""
    parts = (finding.rule_id, finding.tenant, finding.key, finding.principal)
    return hashlib.sha256(_FINGERPRINT + b"".join(_lp16(part) for part in parts)).digest()


def finding_id(of_fingerprint: bytes, opened_ms: int) -> str:
    """Name one run of hits, in hex; `opened_ms` is the effective time of its first hit."""
    return hashlib.sha256(_FINDING + of_fingerprint + opened_ms.to_bytes(8, "big")).hexdigest()


def alert_id(of_fingerprint: bytes, opening_finding_id: str) -> str:
    """Name the alert that this finding opened, in hex."""
    return hashlib.sha256(of_fingerprint + bytes.fromhex(opening_finding_id)).hexdigest()


def _lp16(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw
