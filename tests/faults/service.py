"""A service process: encrypts and decrypts through cryptocore for as long as it is told, until somebody kills it.

Started as `python -m tests.faults.service '<job>'`, its keys in PostgreSQL, its KEK in the campaign's vault. Each
operation has an actor of its own, and is written to the file `acknowledged` after its result was handed out: from then
on its event must be found, but for those of the file `withheld`, a batch that was sealed and never reached Kafka. What
was refused for lack of room, of a store or of a vault is a line in `refused`.
"""

import asyncio
import ssl
import sys
import time
from pathlib import Path
from typing import Any, Self

import msgspec
from azure.core.credentials import AccessToken

from cryptocore.azure import AzureKeyWrapper
from cryptocore.batch import Seal, SealedBatch
from cryptocore.clock import SystemClock
from cryptocore.core import CryptoCore
from cryptocore.emitter import Emitter
from cryptocore.envelope import Owner
from cryptocore.errors import AuditUnavailable, Denied, KeyUnavailable
from cryptocore.kafka import KafkaTransport
from cryptocore.keys import KeyReason
from cryptocore.registry import Registry
from cryptocore.signing import Signer
from cryptocore.store.key_store import KeyStore
from streams.demo.loopback import transport

SERVICE = "billing"
VAULT = "kv-faults"
KEK = "tenant-kek"
OWNERS = 25
AT_ONCE = 20
FAILURES = 10
"""As many as crypto_failures asks for: one hit."""
NEVER_S = 4_102_444_800


class Job(msgspec.Struct, kw_only=True):
    """What one process does.

    `family` names the owners it works for, which a later process may share. It works until `seconds` are over or the
    file `enough` is there, its own or that of all, whichever is first. `withholds`: one batch of its chain is not sent,
    and it believes that it was. `scene`: a decrypt with a revoked key, and ten broken ciphertexts.
    """

    name: str
    family: str
    kafka: str
    topic: str
    partitions: int
    folder: str
    store_url: str
    vault_port: int
    token: str
    per_s: float
    seconds: float
    scene: bool = False
    withholds: bool = False
    skew_us: int = 0
    quota_bytes: int = 512 * 1024 * 1024

    def file(self, kind: str) -> Path:
        return Path(self.folder) / f"{self.name}.{kind}"

    def is_over(self) -> bool:
        return self.file("enough").exists() or (Path(self.folder) / "enough").exists()

    def owners_done(self) -> set[int]:
        """Which of its owners have got a result."""
        made = self.file("acknowledged")
        lines = made.read_text().splitlines() if made.exists() else []
        return {int(line.rpartition("-")[2]) % OWNERS for line in lines}


class SkewedClock(SystemClock):
    """The machine's clock, set wrong."""

    def __init__(self, skew_us: int) -> None:
        self._skew_us = skew_us

    def now_us(self) -> int:
        return super().now_us() + self._skew_us


class Token:
    """The service's token for the campaign's vault."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return AccessToken(self._token, NEVER_S)

    async def close(self) -> None:
        """Nothing is held open."""

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held open."""

    async def __aenter__(self) -> Self:
        return self


def wrapper(token: str, port: int, folder: Path, clock: SystemClock | None = None) -> AzureKeyWrapper:
    """The way to the campaign's vault through the real SDK, as whoever the token names."""
    trusted = ssl.create_default_context(cadata=(folder / "vault.pem").read_text())
    return AzureKeyWrapper(
        "main",
        vault_url=f"https://{VAULT}.vault.azure.net",
        key_name=KEK,
        credential=Token(token),
        clock=clock,
        transport=transport(trusted, port),
    )


class Withholding(KafkaTransport):
    """Keeps one batch of encrypts in the midst of a chain to itself, and says that it was sent."""

    withheld: Path

    async def send(self, partition: int, batch: SealedBatch) -> None:
        if self.withheld.exists() or not self._fits(batch):
            await super().send(partition, batch)
            return
        written = self.withheld.with_suffix(".writing")
        written.write_bytes(Seal.decode(batch.seal).instance.hex().encode() + b"\n" + batch.value)
        written.rename(self.withheld)

    @staticmethod
    def _fits(batch: SealedBatch) -> bool:
        lines = [msgspec.json.decode(line) for line in batch.value.splitlines()]
        return Seal.decode(batch.seal).sequence > 0 and all(
            line.get("operation") == "encrypt" and not line.get("vault_attempts") for line in lines
        )


def transport_of(job: Job) -> KafkaTransport:
    made = Withholding if job.withholds else KafkaTransport
    way = made(job.kafka, job.topic, partitions=job.partitions, security_protocol="PLAINTEXT")
    if isinstance(way, Withholding):
        way.withheld = job.file("withheld")
    return way


def core_of(job: Job) -> CryptoCore:
    folder, clock = Path(job.folder), SkewedClock(job.skew_us)
    registry = Registry.load(folder / "sources.json")
    signer = Signer.from_file(folder / f"{SERVICE}.key")
    emitter = Emitter(
        spool_dir=folder / ("spool" if not job.skew_us else f"spool-{job.name}"),
        signer=signer,
        deployment=registry.deployment,
        service=SERVICE,
        transport=transport_of(job),
        partitions=job.partitions,
        clock=clock,
        heartbeat_s=5,
        quota_bytes=job.quota_bytes,
    )
    return CryptoCore(
        service=SERVICE,
        deployment=registry.deployment,
        registry=registry,
        store=KeyStore(job.store_url, registry=registry),
        wrappers={"main": wrapper(job.token, job.vault_port, folder, clock)},
        kek_alias="main",
        emitter=emitter,
        key_signer=signer,
        clock=clock,
    )


class Process:
    def __init__(self, job: Job, core: CryptoCore) -> None:
        self.job = job
        self.core = core
        self.file = job.file("acknowledged").open("a", buffering=1, encoding="ascii")

    def owner(self, number: int) -> Owner:
        return Owner.tenant(f"{self.job.family}-{number % OWNERS}", "crm")

    async def use(self, number: int) -> None:
        """Encrypt as an actor of its own; say so once the result is there."""
        actor = f"job:{self.job.name}-{number}"
        try:
            await self.core.encrypt(
                b"token",
                owner=self.owner(number),
                record=f"r/{number}",
                purpose="faults",
                actor=actor,
                create_missing=True,
            )
        except (AuditUnavailable, KeyUnavailable) as refusal:
            with self.job.file("refused").open("a", encoding="ascii") as file:
                file.write(f"{type(refusal).__name__}\n")
            return
        self.file.write(f"{actor}\n")

    async def work(self) -> None:
        for number in range(OWNERS):  # one after the other: a key is made once
            await self.use(number)
        began, done = time.monotonic(), OWNERS
        while time.monotonic() - began < self.job.seconds and not self.job.is_over():
            await asyncio.gather(*(self.use(number) for number in range(done, done + AT_ONCE)))
            done += AT_ONCE
            due = began + (done - OWNERS) / self.job.per_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def scene(self) -> None:
        """What must be found: the use of a revoked key, and a row of broken ciphertexts."""
        acting = {"purpose": "faults", "actor": "job:scene"}
        victim, clumsy = Owner.tenant(f"{self.job.name}-victim", "crm"), Owner.tenant(f"{self.job.name}-clumsy", "crm")
        kept = await self.core.encrypt(b"secret", owner=victim, record="r", create_missing=True, **acting)
        key = await self.core.describe(victim)
        await self.core.revoke(key.key_id, reason=KeyReason.COMPROMISE_SUSPECTED, purpose="faults", actor="job:scene")
        await asyncio.sleep(1.5)  # a decrypt long enough after the revocation to be no matter of clocks
        await self.denied(kept, victim)
        self.planted("revoked_key_decrypt", key.key_id)
        good = await self.core.encrypt(b"token", owner=clumsy, record="r", create_missing=True, **acting)
        broken = good[:-1] + bytes((good[-1] ^ 1,))
        for _ in range(FAILURES):
            await self.denied(broken, clumsy)
        self.planted("crypto_failures", (await self.core.describe(clumsy)).key_id)

    def planted(self, rule: str, key_id: str) -> None:
        with self.job.file("planted").open("a", encoding="ascii") as file:
            file.write(f"{rule} {key_id} {time.time()}\n")

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
        process = Process(job, core)
        if job.scene:
            await process.scene()
        else:
            await process.work()
    finally:
        await core.close()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Job)))
