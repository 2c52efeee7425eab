"""Changes of a registry that people make: the result is a file to be reviewed."""

from dataclasses import replace

from cryptocore.errors import RegistryInvalid
from cryptocore.registry import RegisteredSigner, Registry


def ending(registry: Registry, signer_id: bytes, *, valid_until_ms: int) -> Registry:
    """Let an entry end: what it signed before stays good.

    Raises:
        RegistryInvalid: there is no such entry, or it would end before it began.
    """
    return _with(registry, replace(_entry(registry, signer_id), valid_until_ms=valid_until_ms))


def compromised(registry: Registry, signer_id: bytes, *, from_ms: int) -> Registry:
    """Mark an entry whose private key is in other hands since a time.

    Raises:
        RegistryInvalid: there is no such entry.
    """
    return _with(registry, replace(_entry(registry, signer_id), compromised_from_ms=from_ms))


def _entry(registry: Registry, signer_id: bytes) -> RegisteredSigner:
    entry = registry.get(signer_id)
    if entry is None:
        raise RegistryInvalid("signer_id", f"there is no entry {signer_id.hex()}")
    return entry


def _with(registry: Registry, changed: RegisteredSigner) -> Registry:
    signers = (changed if signer.signer_id == changed.signer_id else signer for signer in registry.signers)
    return Registry(registry.deployment, tuple(signers))
