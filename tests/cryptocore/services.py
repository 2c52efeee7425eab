"""A whole core that works by itself, on files, for tests that fork, kill or block; and what its log must hold."""

from collections import Counter
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from cryptocore import CacheLimits, CryptoCore, Emitter, KeyStore, Owner, Registry, Signer
from cryptocore.events import AuditEvent, Line
from cryptocore.testing import register
from cryptocore.throttle import VaultBudget
from cryptocore.wrapping import LocalKeyWrapper
from tests.cryptocore.filelog import FileTransport, read_log
from tests.cryptocore.spooling import received

SERVICE = "billing"
PARTITIONS = 3
OWNER = Owner.tenant("t-88", "crm")


def local_core(
    directory: Path,
    signer: Signer,
    *,
    durability: str = "volume",
    limits: CacheLimits | None = None,
    budget: VaultBudget | None = None,
) -> CryptoCore:
    """Make a core with spools, log and key store in a folder; its KEK is in the process, and so in its children."""
    registry = registry_of(signer)
    return CryptoCore(
        service=SERVICE,
        deployment=registry.deployment,
        registry=registry,
        store=KeyStore(f"sqlite:///{directory / 'keys.sqlite'}", registry=registry),
        wrappers={"kek": LocalKeyWrapper("kek", keys={"1": kek_in(directory)})},
        kek_alias="kek",
        emitter=emitter(directory, signer, durability=durability),
        key_signer=signer,
        limits=limits,
        vault_budget=budget,
    )


def kek_in(directory: Path) -> RSAPrivateKey:
    """Read the KEK that processes share; the first one draws it."""
    file = directory / "kek.pem"
    if not file.exists():
        key = generate_private_key(65537, 2048)
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    kek = load_pem_private_key(file.read_bytes(), None)
    assert isinstance(kek, RSAPrivateKey)
    return kek


def emitter(directory: Path, signer: Signer, *, durability: str = "volume") -> Emitter:
    """Make an emitter on the same files."""
    return Emitter(
        spool_dir=directory / "spool",
        signer=signer,
        deployment=bytes(16),
        service=SERVICE,
        transport=FileTransport(directory / "log"),
        partitions=PARTITIONS,
        linger_ms=10,
        durability=durability,
    )


def registry_of(signer: Signer) -> Registry:
    """Register the one signer."""
    return register(signer, source=SERVICE)


async def adopt_what_is_left(directory: Path, signer: Signer) -> None:
    """Do what the next process of the service does."""
    last = emitter(directory, signer)
    await last.open()
    await last.close()


def lines_in(directory: Path, signer: Signer) -> list[Line]:
    """Read the log as a receiver: chains are whole, duplicates dropped."""
    return received(read_log(directory / "log"), registry_of(signer))


def actors_in(directory: Path, signer: Signer) -> Counter[str]:
    """Count events that succeeded, by actor."""
    return Counter(
        line.actor
        for line in lines_in(directory, signer)
        if isinstance(line, AuditEvent) and line.outcome == "succeeded" and line.phase == "single"
    )
