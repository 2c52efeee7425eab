"""A service on real Kafka that uses its core, forks, and uses it on both sides; it follows the topic of key states."""

import os
import sys
from pathlib import Path

from cryptocore import CryptoCore, Emitter, KeyStore, Signer, acting
from cryptocore.kafka import KafkaTransport, connection
from cryptocore.keystate_kafka import KafkaKeyStates
from cryptocore.wrapping import LocalKeyWrapper
from tests.cryptocore.services import OWNER, PARTITIONS, SERVICE, kek_in, registry_of

USES = 20


def kafka_core(directory: Path, bootstrap: str, topic: str, states: str) -> CryptoCore:
    signer = Signer.from_file(directory / "signer")
    registry = registry_of(signer)
    emitter = Emitter(
        spool_dir=directory / "spool",
        signer=signer,
        deployment=registry.deployment,
        service=SERVICE,
        transport=KafkaTransport(bootstrap, topic, partitions=PARTITIONS, security_protocol="PLAINTEXT"),
        partitions=PARTITIONS,
        linger_ms=10,
        durability="broker",
    )
    return CryptoCore(
        service=SERVICE,
        deployment=registry.deployment,
        registry=registry,
        store=KeyStore(f"sqlite:///{directory / 'keys.sqlite'}", registry=registry),
        wrappers={"kek": LocalKeyWrapper("kek", keys={"1": kek_in(directory)})},
        kek_alias="kek",
        emitter=emitter,
        key_signer=signer,
        key_states=KafkaKeyStates(connection(bootstrap, security_protocol="PLAINTEXT"), states),
    )


def main(directory: Path, bootstrap: str, topic: str, states: str) -> None:
    core = kafka_core(directory, bootstrap, topic, states)
    with acting(actor="job:parent", purpose="store-token"):
        stored = core.sync.encrypt(b"before", owner=OWNER, record="r", create_missing=True)
    child = os.fork()
    if not child:
        assert core.stats().events_committed == 0
    with acting(actor="job:parent" if child else "job:child", purpose="store-token"):
        for _ in range(USES):
            assert core.sync.decrypt(stored, owner=OWNER, record="r") == b"before"
    assert core.stats().batches_sent >= 1
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:5])
