"""Whom to believe: one approval by a registered person, and two of them by different people for one act. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptocore.life.approvals import Action, Approval, ApprovalInvalid, SignedApproval
from cryptocore.registry import Registry, Role
from cryptocore.signing import APPROVAL, SIGNATURE_SIZE, SignatureInvalid, verify

PEOPLE: Final = 2
"""How many different persons must have signed."""


@dataclass(frozen=True, slots=True)
class Verified:
    """An approval that is believed, and the person who gave it."""

    approval: Approval
    signed: SignedApproval
    person: str


def verify_approval(signed: SignedApproval, registry: Registry, *, at_ms: int) -> Verified:
    """Read an approval and believe it.

    1. It parses, and was made for this deployment.
    2. Its signer is a registered person with role `approve` at `at_ms`, whose key was not in other hands by then.
    3. The signature holds.
    4. `at_ms` lies within its times.

    The caller still owes: that it allows this very act, the other person, and that its nonce was not used.

    Args:
        signed: as carried.
        registry: of this deployment.
        at_ms: by a clock that nobody's process sets: the database's, or the broker's append time.

    Raises:
        ApprovalInvalid: names the field.
    """
    # 1
    approval = Approval.decode(signed.approval)
    if approval.deployment != registry.deployment:
        raise ApprovalInvalid("deployment", "not this deployment")
    # 2
    entry = registry.get(approval.signer_id)
    if entry is None or not entry.usable(Role.APPROVE, at_ms) or entry.person is None:
        raise ApprovalInvalid("signer_id", "not registered to approve at that time")
    if entry.suspect(at_ms):
        raise ApprovalInvalid("signer_id", "its key was in other hands at that time")
    # 3
    if len(signed.signature) != SIGNATURE_SIZE:
        raise ApprovalInvalid("sig", f"not {SIGNATURE_SIZE} bytes")
    try:
        verify(entry.public_key, APPROVAL, signed.approval, signed.signature)
    except SignatureInvalid:
        raise ApprovalInvalid("sig", "does not hold") from None
    # 4
    if not approval.not_before_ms <= at_ms < approval.expires_ms:
        raise ApprovalInvalid("expires_ms", "not valid at that time")
    return Verified(approval, signed, entry.person)


def two_people(
    approvals: Sequence[SignedApproval], registry: Registry, *, action: Action, at_ms: int
) -> tuple[Verified, ...]:
    """Check that two different people allow one and the same act.

    Raises:
        ApprovalInvalid: one of them is not believed, they differ in what they allow, or one person gave both.
    """
    verified = tuple(verify_approval(signed, registry, at_ms=at_ms) for signed in approvals)
    if len(verified) != PEOPLE:
        raise ApprovalInvalid("approval", f"{PEOPLE} are needed")
    if any(one.approval.action is not action for one in verified):
        raise ApprovalInvalid("action", f"not {action.name.lower()}")
    if len({one.approval.names for one in verified}) != 1:
        raise ApprovalInvalid("subject_sha256", "they approve different things")
    if len({one.person.casefold().strip() for one in verified}) != PEOPLE:
        raise ApprovalInvalid("person", "both are the same person's")
    if len({one.approval.nonce for one in verified}) != PEOPLE:
        raise ApprovalInvalid("nonce", "both have the same")
    return verified


def by_key(approvals: Iterable[SignedApproval]) -> dict[tuple[bytes, int], list[SignedApproval]]:
    """Sort approvals by the key version they name.

    Raises:
        ApprovalInvalid: one does not parse.
    """
    sorted_out: dict[tuple[bytes, int], list[SignedApproval]] = {}
    for signed in approvals:
        approval = Approval.decode(signed.approval)
        sorted_out.setdefault((approval.key_id, approval.key_version), []).append(signed)
    return sorted_out
