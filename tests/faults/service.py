"""A service process: encrypts and decrypts through cryptocore for as long as it is told, until somebody kills it.

Started as `python -m tests.faults.service '<job>'`. Each operation has an actor of its own, and is written to the file
`acknowledged` after its result was handed out: from then on its event must be found.
"""

import asyncio
import sys
import time
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cryptocore.core import CryptoCore
from cryptocore.emitter import Emitter
from cryptocore.envelope import Owner
from cryptocore.errors import Denied
from cryptocore.kafka import KafkaTransport
from cryptocore.keys import KeyReason
from cryptocore.registry import Registry
from cryptocore.signing import Signer
from cryptocore.store import KeyStore
from cryptocore.wrapping import LocalKeyWrapper

SERVICE = "billing"
OWNERS = 25
AT_ONCE = 20
FAILURES = 10
"""As many as crypto_failures asks for: one hit."""


class Job(msgspec.Struct, kw_only=True):
    """What one process does. `scenes`: also decrypt with a revoked key, and ten broken ciphertexts."""

    name: str
    kafka: str
    topic: str
    partitions: int
    folder: str
    operations: int
    seconds: float
    scenes: bool

    @property
    def acknowledged(self) -> Path:
        return Path(self.folder) / f"{self.name}.acknowledged"


def core_of(job: Job) -> CryptoCore:
    folder = Path(job.folder)
    registry = Registry.load(folder / "sources.json")
    signer = Signer.from_file(folder / f"{SERVICE}.key")
    kek = load_pem_private_key((folder / "kek.pem").read_bytes(), None)
    assert isinstance(kek, RSAPrivateKey)
    emitter = Emitter(
        spool_dir=folder / "spool",
        signer=signer,
        deployment=registry.deployment,
        service=SERVICE,
        transport=KafkaTransport(job.kafka, job.topic, partitions=job.partitions, security_protocol="PLAINTEXT"),
        partitions=job.partitions,
    )
    return CryptoCore(
        service=SERVICE,
        deployment=registry.deployment,
        registry=registry,
        store=KeyStore(f"sqlite:///{folder}/{job.name}.keys.db", registry=registry),
        wrappers={"main": LocalKeyWrapper("main", keys={"v1": kek})},
        kek_alias="main",
        emitter=emitter,
        key_signer=signer,
    )


class Process:
    def __init__(self, job: Job, core: CryptoCore) -> None:
        self.job = job
        self.core = core
        self.done = 0
        self.file = job.acknowledged.open("a", buffering=1, encoding="ascii")

    def actor(self, number: int) -> str:
        return f"job:{self.job.name}-{number}"

    def owner(self, number: int) -> Owner:
        return Owner.tenant(f"{self.job.name}-{number % OWNERS}", "crm")

    async def encrypt(self, number: int) -> None:
        await self.core.encrypt(
            b"token", owner=self.owner(number), record=f"r/{number}", purpose="faults", actor=self.actor(number)
        )
        self.file.write(f"{self.actor(number)}\n")

    async def work(self) -> None:
        for number in range(OWNERS):
            await self.core.encrypt(
                b"first", owner=self.owner(number), record="r", purpose="faults", actor="job:first", create_missing=True
            )
        began = time.monotonic()
        for start in range(0, self.job.operations, AT_ONCE):
            await asyncio.gather(*(self.encrypt(number) for number in range(start, start + AT_ONCE)))
            if self.job.scenes and start == self.job.operations // AT_ONCE // 2 * AT_ONCE:
                await self.scenes()
            due = began + self.job.seconds * (start + AT_ONCE) / self.job.operations
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def scenes(self) -> None:
        acting = {"purpose": "faults", "actor": "job:scene"}
        victim, clumsy = Owner.tenant(f"{self.job.name}-victim", "crm"), Owner.tenant(f"{self.job.name}-clumsy", "crm")
        kept = await self.core.encrypt(b"secret", owner=victim, record="r", create_missing=True, **acting)
        key = await self.core.describe(victim)
        await self.core.revoke(key.key_id, reason=KeyReason.COMPROMISE_SUSPECTED, purpose="faults", actor="job:scene")
        await asyncio.sleep(1.5)  # a decrypt long enough after the revocation to be no matter of clocks
        await self.denied(kept, victim)
        good = await self.core.encrypt(b"token", owner=clumsy, record="r", create_missing=True, **acting)
        broken = good[:-1] + bytes((good[-1] ^ 1,))
        for _ in range(FAILURES):
            await self.denied(broken, clumsy)

    async def denied(self, ciphertext: bytes, owner: Owner) -> None:
        try:
            await self.core.decrypt(ciphertext, owner=owner, record="r", purpose="faults", actor="job:scene")
        except Denied:
            return
        raise AssertionError("a scene went right that must go wrong")


async def main(job: Job) -> None:
    core = core_of(job)
    await core.open()
    try:
        await Process(job, core).work()
    finally:
        await core.close()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Job)))
