"""The Node.js reference against this implementation: each reads what the other wrote, and both refuse the same.

Node is not required: where it is missing, or is older than version 20, these tests are skipped.
"""

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from alerts.thresholds import Limits
from cryptocore.batch import OpenedBatch, SealedBatch, open_batch
from cryptocore.dek import Dek
from cryptocore.envelope import Owner, Suite, decrypt_envelope, encrypt_envelope
from cryptocore.errors import DecryptionFailed, EventInvalid
from cryptocore.events import AuditEvent, ChainClose, ChainOpen, Operation, Outcome, Phase, decode_line
from cryptocore.keys import KeyReason, KeyState
from cryptocore.life.approvals import Action, Approval, sign_approval
from cryptocore.records import KeyRecord, SignedRecord, sign_record
from cryptocore.registry import RegisteredSigner, Registry, Role
from cryptocore.signing import Signer
from cryptocore.wrapping import LocalKeyWrapper, WrapAlgorithm, build_blob, commitment, open_blob
from streams.index.embedded import EmbeddedIndex
from streams.index.port import DocKind
from streams.messages import KEY_EVENTS, Message
from streams.pipeline import steps
from streams.running.memory import MemoryShell
from tests.streams.builders import DEPLOYMENT, NOW_MS, Monitor, registered

ROOT = Path(__file__).parents[2]
NODE_EXAMPLE = ROOT / "examples" / "node"
VECTORS = ROOT / "tests" / "vectors"
PARTITIONS = 4
KEY_ID = bytes.fromhex("3f2a6c1e9b7d4058a1c3e5f708192a3b")
OWNER = Owner.tenant("t-88", "crm")
OWNER_JSON = {"tenant_id": "t-88", "integration_id": "crm"}
PLACE = "tokens/8f3c/access"
SEED = b"\x01" * 32


def _node() -> str | None:
    node = shutil.which("node")
    if node is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return node if int(version.removeprefix("v").partition(".")[0]) >= 20 else None


NODE = _node()
pytestmark = pytest.mark.skipif(NODE is None, reason="no Node.js of version 20 or later")


@contextmanager
def peer(task: dict[str, Any]) -> Iterator["subprocess.Popen[str]"]:
    """Start the peer with its task."""
    assert NODE is not None
    command = [NODE, str(NODE_EXAMPLE / "test" / "peer.mjs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(task))
        process.stdin.close()
        try:
            yield process
        finally:
            process.kill()


def ask(act: str, **task: Any) -> dict[str, Any]:
    with peer({"act": act, **task}) as process:
        assert process.stdout is not None
        last: dict[str, Any] = json.loads(process.stdout.read().splitlines()[-1])
    return last


def answer(act: str, **task: Any) -> Any:
    return ask(act, **task)["answer"]


@dataclass(frozen=True)
class Deployment:
    """A service `billing` with one key, whose record this side signed and whose KEK is a key in the process."""

    signer: Signer
    registry: Registry
    kek: rsa.RSAPrivateKey
    dek: bytes
    wrapped_dek: bytes
    record: SignedRecord

    @property
    def key(self) -> dict[str, Any]:
        return {"suite": 1, "key_id": KEY_ID.hex(), "key_version": 1, "owner": OWNER_JSON}

    @property
    def local(self) -> dict[str, str]:
        pem = self.kek.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return {"name": "local-kek", "version": "1", "pem": pem}

    def service(self, directory: Path, log: Path, **more: Any) -> dict[str, Any]:
        row = {
            "record": self.record.record.hex(),
            "signature": self.record.signature.hex(),
            "wrapped_dek": self.wrapped_dek.hex(),
        }
        return {
            "act": "serve",
            "directory": str(directory),
            "log": str(log),
            "service": "billing",
            "generation": 1,
            "partitions": PARTITIONS,
            "registry": self.registry.encode().decode(),
            "seed": SEED.hex(),
            "kek": self.local,
            "row": row,
            "record": PLACE,
            **self.key,
            **more,
        }


@pytest.fixture(scope="module")
def ours() -> Deployment:
    signer = Signer.from_private_bytes(SEED)
    approver = _person("Alice Example", Signer.from_private_bytes(b"\x03" * 32))
    registry = Registry(DEPLOYMENT, (registered("billing", signer), approver))
    kek = rsa.generate_private_key(65537, 2048)
    dek = os.urandom(32)
    blob = build_blob(dek, Suite.XAES_256_GCM, KEY_ID, 1, OWNER)
    wrapped = kek.public_key().encrypt(blob, OAEP(MGF1(SHA256()), SHA256(), None))
    record = KeyRecord(
        deployment=DEPLOYMENT,
        key_id=KEY_ID,
        key_version=1,
        revision=1,
        state=KeyState.ACTIVE,
        reason=KeyReason.NONE,
        suite=Suite.XAES_256_GCM,
        owner_sha256=sha256(OWNER.encode()).digest(),
        kek_alias="local-kek",
        kek_version="1",
        wrap_alg=WrapAlgorithm.LOCAL,
        wrapped_dek_sha256=sha256(wrapped).digest(),
        commitment=commitment(dek, Suite.XAES_256_GCM, KEY_ID, 1),
        changed_at_ms=NOW_MS,
        superseded_by=0,
        retire_at_ms=0,
        previous_record_sha256=bytes(32),
        event_sha256=sha256(b"").digest(),
        signer_id=signer.signer_id,
    )
    return Deployment(signer, registry, kek, dek, wrapped, sign_record(record, signer))


@pytest.fixture
def work() -> Iterator[Path]:
    """A folder with a short path: a spool has a socket beside it, and its path may have 103 bytes."""
    with tempfile.TemporaryDirectory(prefix="kt-") as path:
        yield Path(path)


def _person(name: str, signer: Signer) -> RegisteredSigner:
    return RegisteredSigner(
        signer_id=signer.signer_id,
        public_key=signer.public_key,
        source="people",
        roles=frozenset({Role.APPROVE}),
        vault_principals=(),
        person=name,
        valid_from_ms=0,
        valid_until_ms=2 * NOW_MS,
        compromised_from_ms=None,
    )


# --- the vectors and the reference's own tests -------------------------------------------------------------------


def test_the_reference_passes_its_own_tests_and_all_vectors() -> None:
    assert NODE is not None
    files = sorted(str(path) for path in (NODE_EXAMPLE / "test").glob("*.test.mjs"))

    run = subprocess.run([NODE, "--test", *files], capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)

    assert run.returncode == 0, run.stdout[-8000:]
    assert len(files) >= 3


def test_the_reference_imports_nothing_but_node_itself() -> None:
    imports = [
        line.rpartition(" from ")[2].strip(' ";')
        for path in NODE_EXAMPLE.rglob("*.mjs")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith(("import ", "} from "))
    ]

    assert len(imports) > 50
    assert [name for name in imports if not name.startswith(("node:", "./", "../"))] == []


# --- ciphertexts, keys and records, both ways ----------------------------------------------------------------------


def test_python_opens_what_node_encrypted(ours: Deployment) -> None:
    plaintext = "Grüße".encode()

    envelope = answer("encrypt", **ours.key, dek=ours.dek.hex(), record=PLACE, plaintext=plaintext.hex())

    assert decrypt_envelope(Dek(ours.dek), bytes.fromhex(envelope), owner=OWNER, record=PLACE) == plaintext
    with pytest.raises(DecryptionFailed):
        decrypt_envelope(Dek(ours.dek), bytes.fromhex(envelope), owner=OWNER, record="tokens/8f3c/refresh")


@pytest.mark.parametrize("size", [0, 1, 16, 1_048_576])
def test_node_opens_what_python_encrypted(ours: Deployment, size: int) -> None:
    plaintext = os.urandom(size)
    envelope = encrypt_envelope(
        Dek(ours.dek), key_id=KEY_ID, key_version=1, owner=OWNER, record=PLACE, plaintext=plaintext
    )
    task = {**ours.key, "dek": ours.dek.hex(), "record": PLACE, "envelope": envelope.hex()}

    assert answer("decrypt", **task) == plaintext.hex()
    assert ask("decrypt", **{**task, "record": "tokens/8f3c/refresh"})["error"] == "DecryptionFailed"


async def test_each_unwraps_what_the_other_wrapped(ours: Deployment) -> None:
    wrapped = answer("wrap", **ours.key, kek=ours.local, dek=ours.dek.hex())
    wrapper = LocalKeyWrapper("local-kek", keys={"1": ours.kek})

    theirs = await wrapper.unwrap(bytes.fromhex(wrapped["wrapped_dek"]), version="1", call_ids=wrapper.draw_call_ids())
    assert open_blob(theirs.blob, Suite.XAES_256_GCM, KEY_ID, 1, OWNER) == ours.dek
    assert wrapped["commitment"] == commitment(ours.dek, Suite.XAES_256_GCM, KEY_ID, 1).hex()
    task = {"kek": ours.local, "wrapped_dek": ours.wrapped_dek.hex(), "commitment": wrapped["commitment"]}
    assert answer("unwrap", **ours.key, **task) == ours.dek.hex()


def test_node_believes_a_record_and_an_approval_that_python_signed(ours: Deployment) -> None:
    registry = ours.registry.encode().decode()
    record = {"record": ours.record.record.hex(), "signature": ours.record.signature.hex()}
    approval = Approval(
        deployment=DEPLOYMENT,
        action=Action.DESTROY,
        key_id=KEY_ID,
        key_version=1,
        revision=1,
        subject_sha256=sha256(ours.record.record).digest(),
        not_before_ms=NOW_MS,
        expires_ms=NOW_MS + 1000,
        nonce=os.urandom(16),
        signer_id=Signer.from_private_bytes(b"\x03" * 32).signer_id,
    )
    signed = sign_approval(approval, Signer.from_private_bytes(b"\x03" * 32))

    assert answer("record", **record, registry=registry) == "active"
    assert ask("record", record=record["record"], signature="00" * 64, registry=registry)["error"] == "RecordInvalid"
    carried = {"json": signed.encode().decode(), "registry": registry}
    assert answer("approval", **carried, at_ms=NOW_MS) == "Alice Example"
    assert ask("approval", **carried, at_ms=NOW_MS + 1000)["field"] == "expires_ms"


# --- what both refuse ------------------------------------------------------------------------------------------------


def test_both_refuse_the_same_of_four_thousand_lines_that_were_changed_at_random() -> None:
    lines = list(_changed_lines(4000, random.Random(20)))

    fields = answer("lines", lines=[line.hex() for line in lines])

    mine = [_refused(line) for line in lines]
    differences = [
        (line.decode(errors="replace"), here, there)
        for line, here, there in zip(lines, mine, fields, strict=True)
        if (here is None) is not (there is None)
    ]
    assert differences == []
    assert 200 < mine.count(None) < 3800


def _refused(line: bytes) -> str | None:
    try:
        decode_line(line)
    except EventInvalid as err:
        return err.field
    return None


def _changed_lines(count: int, draw: random.Random) -> Iterator[bytes]:
    vectors = json.loads((VECTORS / "event.json").read_text(encoding="utf-8"))
    good = [json.loads(vector["line"]) for vector in vectors["must_pass"]]
    bad = [json.loads(vector["line"]) for vector in vectors["must_fail"] if vector["schema"] == "rejects"]
    pool = [(name, value) for line in (*good, *bad) for name, value in line.items()]
    words = [vector for line in good for vector in (line.get("operation"), line.get("phase"), line.get("outcome"))]
    junk = [None, False, True, [], {}, "", "x", 0, -1, 2**53, "user:1", *words]
    for _ in range(count):
        line = json.loads(json.dumps(draw.choice(good)))
        for _ in range(draw.randint(1, 3)):
            _change(line, draw, pool, junk)
        text = json.dumps(line, separators=(",", ":"), ensure_ascii=draw.random() < 0.5).encode()
        yield _misspelt(text, draw) if draw.random() < 0.3 else text


def _misspelt(text: bytes, draw: random.Random) -> bytes:
    """Write the same JSON, or nearly, as another hand might."""
    at = draw.randrange(len(text) + 1)
    inserted = [
        b" ",
        b"\t",
        b"\r",
        b"\n",
        b"\x0b",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"0",
        b"-",
        b".0",
        b"e1",
        b",",
        b'"',
    ]
    swaps = [
        (b":1,", b":01,"),
        (b":1,", b":1.0,"),
        (b":1,", b":1e0,"),
        (b'"v"', b'"\\u0076"'),
        (b"{", b'{"v":1,'),
        (b"s", b"\\u0073"),
    ]
    if draw.random() < 0.5:
        return text[:at] + draw.choice(inserted) + text[at:]
    old, new = draw.choice(swaps)
    return text.replace(old, new, 1)


def _change(line: dict[str, Any], draw: random.Random, pool: list[tuple[str, Any]], junk: list[Any]) -> None:
    kind = draw.random()
    inner = [value for value in line.values() if isinstance(value, dict) and value]
    if kind < 0.5:
        name, value = draw.choice(pool)
        line[name] = json.loads(json.dumps(value))
    elif kind < 0.7:
        line.pop(draw.choice(list(line)))
    elif kind < 0.85 and inner:
        target = draw.choice(inner)
        target.pop(draw.choice(list(target)))
    else:
        target = draw.choice([line, *inner])
        target[draw.choice(list(target))] = draw.choice(junk)


# --- batches, and the chain of a service ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrived:
    """A message of the service as the broker stamped it."""

    partition: int
    append_ms: int
    batch: SealedBatch
    headers: tuple[tuple[str, bytes], ...]
    opened: OpenedBatch


def arrived(log: Path, registry: Registry) -> list[Arrived]:
    found = []
    for line in log.read_text(encoding="utf-8").splitlines():
        raw = json.loads(line)
        headers = tuple((name, bytes.fromhex(value)) for name, value in raw["headers"])
        batch = SealedBatch.from_headers(bytes.fromhex(raw["value"]), headers)
        opened = open_batch(batch, registry, generation=1, partition=raw["partition"], append_ms=raw["append_ms"])
        found.append(Arrived(raw["partition"], raw["append_ms"], batch, headers, opened))
    return found


def watched(messages: list[Arrived], ours: Deployment, *, minutes: int = 30) -> Monitor:
    """Let a monitor read everything and then half an hour go by, in which what is missing would show."""
    monitor = Monitor(*ours.registry.signers, partitions=PARTITIONS)
    monitor.now_ms = messages[0].append_ms
    for number, one in enumerate(messages):
        value = one.batch.value
        monitor.take(Message(KEY_EVENTS, one.partition, number, one.append_ms, None, value, one.headers))
    monitor.tick(monitor.now_ms + minutes * 60_000, step_ms=20_000)
    return monitor


async def indexed(messages: list[Arrived], ours: Deployment, work: Path) -> dict[str, list[dict[str, Any]]]:
    """Run the whole pipeline of the workers over them, and give what the index then holds."""
    index = EmbeddedIndex(work / "index.sqlite")
    await index.ensure()
    shell = MemoryShell(steps=steps(ours.registry, Limits()), partitions={KEY_EVENTS: PARTITIONS}, index=index)
    for one in messages:
        shell.append(
            KEY_EVENTS,
            key=None,
            value=one.batch.value,
            headers=one.headers,
            partition=one.partition,
            append_ms=one.append_ms,
        )
    await shell.run()
    for minute in range(1, 91):
        await shell.tick(messages[-1].append_ms + minute * 60_000)
    await shell.close()
    found = {kind.value: await index.find(kind) for kind in DocKind}
    await index.close()
    return found


def lines_of(messages: list[Arrived]) -> list[Any]:
    return [line for one in messages for line in one.opened.lines]


async def test_the_monitor_takes_a_life_of_a_node_service_without_a_finding(ours: Deployment, work: Path) -> None:
    log = work / "log"
    with peer(ours.service(work / "spool", log, uses=40)) as process:
        assert process.stdout is not None
        said = [json.loads(line) for line in process.stdout]

    assert said[-1] == {"answer": {"sent": True}}
    envelopes = [bytes.fromhex(one["envelope"]) for one in said if "envelope" in one]
    opened = [decrypt_envelope(Dek(ours.dek), envelope, owner=OWNER, record=PLACE) for envelope in envelopes]
    assert opened == [f"token {number}".encode() for number in range(40)]
    messages = arrived(log, ours.registry)
    monitor = watched(messages, ours)
    assert monitor.found() == {}
    assert monitor.rejected() == []
    longest = Counter(message.partition for message in messages).most_common(1)[0][0]
    first = next(place for place, message in enumerate(messages) if message.partition == longest)
    without = [*messages[:first], *messages[first + 1 :]]
    assert watched(without, ours).found() != {}, "a monitor that does not notice proves nothing"
    documents = await indexed(messages, ours, work)
    assert len(documents[DocKind.EVENT]) == 82  # 40 uses of each kind; one unwrap, in two events
    assert len(documents[DocKind.CONTROL]) == 2
    assert documents[DocKind.ALERT] == []
    assert documents[DocKind.REJECTED] == []


@pytest.mark.parametrize("away", [False, True], ids=["while it sends", "while the log is away"])
def test_a_service_that_is_killed_leaves_no_hole_in_its_chain(ours: Deployment, work: Path, *, away: bool) -> None:
    log, spools = work / "log", work / "spool"
    with peer(ours.service(spools, log, uses=25, hang=True, away=away, pace_ms=5)) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(json.loads(line))
            if "hanging" in said[-1]:
                break
        process.kill()
    with peer(ours.service(spools, log, uses=1)) as process:
        assert process.stdout is not None
        next_said = [json.loads(line) for line in process.stdout]

    assert next_said[-1] == {"answer": {"sent": True}}
    messages = arrived(log, ours.registry)
    dead, alive = said[0]["instance"], next_said[0]["instance"]
    left = [line for one in messages if one.opened.seal.instance.hex() == dead for line in lines_of([one])]
    assert len([line for line in left if getattr(line, "operation", None) is Operation.ENCRYPT]) == 25
    [unknown] = [line for line in left if getattr(line, "outcome", None) is Outcome.UNKNOWN]
    assert unknown.intent_id == said[-1]["hanging"]
    assert [line.continues for line in left if isinstance(line, ChainOpen)] == [None, alive]
    assert [type(line) for line in left].count(ChainClose) == 1
    assert left_open(left) == set()
    assert sorted(path.name for path in spools.iterdir()) == []
    monitor = watched(messages, ours)
    assert monitor.found() == {}
    assert monitor.rejected() == []


def left_open(lines: list[Any]) -> set[str]:
    intents = {line.id for line in lines if isinstance(line, AuditEvent) and line.phase is Phase.INTENT}
    return intents - {line.intent_id for line in lines if isinstance(line, AuditEvent)}


def test_a_service_killed_at_any_time_loses_nothing_that_it_said(ours: Deployment, work: Path) -> None:
    log, spools = work / "log", work / "spool"
    promised = 0
    draw = random.Random(5)
    for _ in range(4):
        with peer(ours.service(spools, log, uses=100_000)) as process:
            assert process.stdout is not None
            end = time.monotonic() + draw.uniform(0.2, 0.6)
            for line in process.stdout:
                promised += "envelope" in line
                if time.monotonic() > end:
                    break
            process.kill()
            promised += sum("envelope" in line for line in process.stdout)
    with peer(ours.service(spools, log, uses=0)) as process:
        process.wait(60)

    messages = arrived(log, ours.registry)
    decrypts = {
        line.id for line in lines_of(messages) if isinstance(line, AuditEvent) and line.operation is Operation.DECRYPT
    }
    assert promised <= len(decrypts) <= promised + 4
    monitor = watched(messages, ours)
    assert monitor.found() == {}
    assert monitor.rejected() == []
