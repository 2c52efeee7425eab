"""How simulated data is told from real data wherever it is read again: by its deployment, and by its subscription."""

import hashlib
from typing import Final

DEPLOYMENT: Final = hashlib.sha256(b"keytrail: simulated data").digest()[:16]
"""The demo seals for this deployment; a real one is drawn at random."""
SUBSCRIPTION: Final = "5f6d9c52-0d0e-4b7c-9a35-2f1f6f4d8a10"
"""The demo's vaults lie in this subscription, which nobody has."""
NOTE: Final = "All data here is simulated: an invented company, made by keytrail demo."


def in_subscription(resource_id: str | None) -> bool:
    """Say whether a resource lies in the demo's subscription."""
    return resource_id is not None and SUBSCRIPTION in resource_id.lower()
