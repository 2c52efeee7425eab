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


def finding_id(of_fingerprint: bytes, opened_ms: int, partition: int = 0) -> str:
    """Name one run of hits, in hex.

    Args:
        of_fingerprint: of the hits.
        opened_ms: the effective time of the first one.
        partition: which one counts them, where several count the same fingerprint: two runs may begin together.
    """
    place = partition.to_bytes(4, "big") if partition else b""
    return hashlib.sha256(_FINDING + of_fingerprint + opened_ms.to_bytes(8, "big") + place).hexdigest()


def alert_id(of_fingerprint: bytes, opening_finding_id: str) -> str:
    """Name the alert that this finding opened, in hex."""
    return hashlib.sha256(of_fingerprint + bytes.fromhex(opening_finding_id)).hexdigest()


def _lp16(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw
