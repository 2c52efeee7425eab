"""A registry and private keys for development: what `keytrail sources init` writes. Never for production."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import Signer

DAY_MS = 24 * 3600 * 1000


def make_registry(
    folder: Path,
    services: Sequence[str],
    *,
    now_ms: int,
    days: int,
    ids: Callable[[int], bytes] = os.urandom,
) -> list[Path]:
    """Write `sources.json` and `<service>.key` (32 raw bytes, mode 0600) into a folder.

    Args:
        services: `name` or `name=vault principal id`; the first one also has the role `keys`.
        days: validity of the signers from now on.

    Returns:
        The files that were written.

    Raises:
        FileExistsError: one of them is there already; nothing is overwritten.
        RegistryInvalid: a name or an id that the registry does not allow.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [service.partition("=") for service in services]
    paths = [folder / "sources.json", *(folder / f"{name}.key" for name, _, _ in pairs)]
    for path in paths:
        if path.exists():
            raise FileExistsError(f"{path} is there already; nothing was written")
    signers = [Signer.generate() for _ in pairs]
    entries = [
        RegisteredSigner(
            signer_id=signer.signer_id,
            public_key=signer.public_key,
            source=name,
            roles=frozenset({Role.EVENTS, Role.KEYS} if place == 0 else {Role.EVENTS}),
            vault_principals=(principal.lower(),) if principal else (),
            person=None,
            valid_from_ms=now_ms,
            valid_until_ms=now_ms + days * DAY_MS,
        )
        for place, ((name, _, principal), signer) in enumerate(zip(pairs, signers, strict=True))
    ]
    paths[0].write_bytes(Registry.parse(Registry(deployment=ids(16), signers=tuple(entries)).encode()).encode())
    for path, signer in zip(paths[1:], signers, strict=True):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(signer.private_bytes())
    return paths
