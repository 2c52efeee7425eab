"""Two people, and what they sign."""

import os
from typing import Final

from cryptocore.life.approvals import Action, Approval, SignedApproval, sign_approval
from cryptocore.records import SignedRecord
from cryptocore.signing import Signer
from cryptocore.testing import CoreUnderTest

ADA: Final = Signer.from_private_bytes(bytes([0xA1]) * 32)
BEN: Final = Signer.from_private_bytes(bytes([0xB2]) * 32)
ADA_AGAIN: Final = Signer.from_private_bytes(bytes([0xA3]) * 32)
APPROVERS: Final = {"Ada Example": ADA, "Ben Example": BEN}
HOUR_MS: Final = 3_600_000


def approval(
    core: CoreUnderTest,
    action: Action,
    record: SignedRecord,
    by: Signer,
    *,
    hours: int = 24,
    nonce: bytes | None = None,
    from_ms: int | None = None,
) -> SignedApproval:
    begin_ms = core.clock.now_us() // 1000 if from_ms is None else from_ms
    made = Approval.of_key(
        action,
        record,
        not_before_ms=begin_ms,
        expires_ms=begin_ms + hours * HOUR_MS,
        nonce=os.urandom(16) if nonce is None else nonce,
        signer_id=by.signer_id,
    )
    return sign_approval(made, by)


async def both(core: CoreUnderTest, action: Action, key_id: str, *numbers: int) -> list[SignedApproval]:
    """Approvals of both for some versions of a key; without numbers, for all."""
    records = await core.records(key_id)
    chosen = [records[number - 1] for number in numbers] or records
    return [approval(core, action, record, by) for record in chosen for by in (ADA, BEN)]
