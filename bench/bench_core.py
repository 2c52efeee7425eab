"""Encrypt and decrypt with a durable audit event for each, beside aws-encryption-sdk, which leaves none.

1 KiB, one cached DEK per owner, eight owners, default limits on both sides (10,000 uses and 300 s per DEK). Ours: 64
callers at once, real RSA unwraps in process, SQLite spool with an fsync before every result, batches sealed, signed and
sent to a log that keeps nothing. The baseline: its caching materials manager over a raw RSA master key, suite without
ECDSA, in a plain loop, which is the fastest way to drive it. Both are measured in turns and the medians compared.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import aws_encryption_sdk
from aws_encryption_sdk.identifiers import Algorithm, CommitmentPolicy, EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.result import Result
from cryptocore.batch import SealedBatch
from cryptocore.core import CryptoCore
from cryptocore.emitter import Emitter
from cryptocore.envelope import Owner
from cryptocore.signing import Signer
from cryptocore.store.key_store import KeyStore
from cryptocore.testing import register
from cryptocore.wrapping import LocalKeyWrapper

OWNERS = [Owner.tenant(f"t-{number}", "crm") for number in range(8)]
PLAINTEXT = bytes(range(256)) * 4
CALLERS = 64
OPERATIONS = 25_600
BASELINE_OPERATIONS = 4_000
ROUNDS = 5
BASELINE = "aws-encryption-sdk with caching"


class Sink:
    """A log that takes everything and keeps nothing: its memory is not what is measured."""

    async def send(self, partition: int, batch: SealedBatch) -> None:
        assert batch.value
        assert partition >= 0

    async def close(self) -> None:
        pass


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[CryptoCore]:
    signer = Signer.generate()
    registry = register(signer)
    emitter = Emitter(
        spool_dir=directory / "spool",
        signer=signer,
        deployment=registry.deployment,
        service="tested",
        transport=Sink(),
        partitions=8,
    )
    core = CryptoCore(
        service="tested",
        deployment=registry.deployment,
        registry=registry,
        store=KeyStore(f"sqlite:///{directory / 'keys.sqlite'}", registry=registry),
        wrappers={"kek": LocalKeyWrapper("kek")},
        kek_alias="kek",
        emitter=emitter,
        key_signer=signer,
    )
    async with core:
        yield core


class Ours:
    def __init__(self, core: CryptoCore, ciphertexts: list[bytes]) -> None:
        self._core = core
        self._ciphertexts = ciphertexts

    @classmethod
    async def prepare(cls, core: CryptoCore) -> "Ours":
        ciphertexts = [
            await core.encrypt(
                PLAINTEXT, owner=owner, record="tokens/1", actor="user:1", purpose="bench", create_missing=True
            )
            for owner in OWNERS
        ]
        return cls(core, ciphertexts)

    async def encrypt(self, number: int) -> None:
        await self._core.encrypt(
            PLAINTEXT, owner=OWNERS[number % 8], record="tokens/1", actor="user:1", purpose="bench"
        )

    async def decrypt(self, number: int) -> None:
        place = number % 8
        await self._core.decrypt(
            self._ciphertexts[place], owner=OWNERS[place], record="tokens/1", actor="user:1", purpose="bench"
        )


async def rate(operation: Callable[[int], Awaitable[None]], *, callers: int, operations: int) -> float:
    """Operations a second with this many callers at once."""

    async def caller(number: int) -> None:
        for _ in range(operations // callers):
            await operation(number)

    started = time.perf_counter()
    await asyncio.gather(*map(caller, range(callers)))
    return operations / (time.perf_counter() - started)


class Baseline:
    def __init__(self) -> None:
        private = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

        class Provider(RawMasterKeyProvider):  # type: ignore[misc]
            provider_id = "bench"

            def _get_raw_key(self, key_id: str) -> WrappingKey:  # noqa: ARG002 - the SDK calls it so
                return WrappingKey(
                    wrapping_algorithm=WrappingAlgorithm.RSA_OAEP_SHA256_MGF1,
                    wrapping_key=private,
                    wrapping_key_type=EncryptionKeyType.PRIVATE,
                )

        provider = Provider()
        provider.add_master_key("kek")
        self._manager = aws_encryption_sdk.CachingCryptoMaterialsManager(
            master_key_provider=provider,
            cache=aws_encryption_sdk.LocalCryptoMaterialsCache(capacity=1000),
            max_age=300.0,
            max_messages_encrypted=10_000,
        )
        self._client = aws_encryption_sdk.EncryptionSDKClient(
            commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
        )
        self._ciphertexts = [self._encrypt(number) for number in range(8)]

    def _encrypt(self, number: int) -> bytes:
        ciphertext, _ = self._client.encrypt(
            source=PLAINTEXT,
            materials_manager=self._manager,
            encryption_context={"tenant": f"t-{number % 8}", "integration": "crm"},
            algorithm=Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
        )
        return bytes(ciphertext)

    def encrypt(self) -> float:
        started = time.perf_counter()
        for number in range(BASELINE_OPERATIONS):
            self._encrypt(number)
        return BASELINE_OPERATIONS / (time.perf_counter() - started)

    def decrypt(self) -> float:
        started = time.perf_counter()
        for number in range(BASELINE_OPERATIONS):
            self._client.decrypt(source=self._ciphertexts[number % 8], materials_manager=self._manager)
        return BASELINE_OPERATIONS / (time.perf_counter() - started)


async def measure(directory: Path) -> dict[str, list[float]]:
    baseline = Baseline()
    found: dict[str, list[float]] = {}
    async with opened(directory) as core:
        ours = await Ours.prepare(core)
        await rate(ours.encrypt, callers=CALLERS, operations=CALLERS * 20)
        for _ in range(ROUNDS):
            for name, operation, theirs in (
                ("encrypt", ours.encrypt, baseline.encrypt),
                ("decrypt", ours.decrypt, baseline.decrypt),
            ):
                found.setdefault(f"{name} baseline", []).append(theirs())
                found.setdefault(name, []).append(await rate(operation, callers=CALLERS, operations=OPERATIONS))
        for callers in (1, 8):
            found[f"encrypt {callers}"] = [
                await rate(ours.encrypt, callers=callers, operations=1_600 * callers) for _ in range(3)
            ]
    return found


def run() -> list[Result]:
    with TemporaryDirectory(prefix="bench-core-", dir=Path.cwd()) as directory:
        found = {name: statistics.median(rates) for name, rates in asyncio.run(measure(Path(directory))).items()}
    results = [
        Result(
            name=f"audited_{name}",
            value=found[name],
            unit="ops/s",
            n=OPERATIONS * ROUNDS,
            baseline_name=BASELINE,
            baseline=found[f"{name} baseline"],
        )
        for name in ("encrypt", "decrypt")
    ]
    results += [
        Result(name=f"audited_encrypt_{callers}_callers", value=found[f"encrypt {callers}"], unit="ops/s", n=4_800)
        for callers in (1, 8)
    ]
    return results


if __name__ == "__main__":
    for result in run():
        print(result, result.ratio)
