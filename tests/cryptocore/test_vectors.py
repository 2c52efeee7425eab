"""Run the vectors of docs/formats.md; what they were made with is tests/vectors/generate.py, a writer of its own."""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jsonschema import Draft202012Validator

from cryptocore import envelope as envelope_module
from cryptocore.batch import SealedBatch, open_batch, seal_batch
from cryptocore.dek import Dek
from cryptocore.envelope import Header, Owner, Suite, associated_data, decrypt_envelope
from cryptocore.errors import BatchRejected, CoreError, FormatError
from cryptocore.events import decode_line, decode_lines, encode_line, json_schema
from cryptocore.life.approval_pairs import two_people, verify_approval
from cryptocore.life.approvals import Action, Approval, SignedApproval, sign_approval
from cryptocore.partitions import partition_key, partition_of
from cryptocore.records import KeyRecord, SignedRecord, check_successor, sign_record, verify_record
from cryptocore.registry import Registry
from cryptocore.signing import Signer
from cryptocore.wrapping import LocalKeyWrapper, build_blob, check_commitment, commitment, open_blob

VECTORS = Path(__file__).parents[1] / "vectors"
Vector = dict[str, Any]


def load(name: str) -> Vector:
    loaded: Vector = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


FILES = {
    name: load(name) for name in ("envelope", "dek_blob", "key_record", "event", "sealed_batch", "registry", "approval")
}


def each(name: str, group: str) -> pytest.MarkDecorator:
    vectors = FILES[name][group]
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


def failure(act: Callable[[], object]) -> str:
    """Write the error as a vector's `expect` does: its name, the finding, the field."""
    with pytest.raises(CoreError) as caught:
        act()
    error = caught.value
    words = [type(error).__name__]
    if isinstance(error, BatchRejected):
        words.append(error.finding)
    if isinstance(error, FormatError):
        words.append(error.field)
    return " ".join(words)


def owner_of(vector: Vector) -> Owner:
    owner: dict[str, str] = vector["owner"]
    if "secret_name" in owner:
        return Owner.secret(owner["secret_name"])
    return Owner.tenant(owner["tenant_id"], owner["integration_id"])


def test_the_files_are_what_their_generator_writes() -> None:
    done = subprocess.run(
        [sys.executable, VECTORS / "generate.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@each("envelope", "must_pass")
def test_envelope_vectors_pass(vector: Vector) -> None:
    dek, nonce, plaintext = (bytes.fromhex(vector[name]) for name in ("dek", "nonce", "plaintext"))
    envelope, record = bytes.fromhex(vector["envelope"]), bytes.fromhex(vector["record"])
    owner = owner_of(vector)
    header = Header(key_id=bytes.fromhex(vector["key_id"]), key_version=vector["key_version"], nonce=nonce)

    assert owner.encode().hex() == vector["owner_bytes"]
    assert Owner.decode(owner.encode()) == owner
    assert Dek(dek).subkey(nonce).hex() == vector["subkey"]
    assert associated_data(header.encode(), owner, record).hex() == vector["associated_data"]
    assert envelope_module._encrypt(Dek(dek), header, owner, record, plaintext) == envelope
    assert Header.parse(envelope) == header
    assert decrypt_envelope(Dek(dek), envelope, owner=owner, record=record) == plaintext


@each("envelope", "must_fail")
def test_envelope_vectors_fail_as_expected(vector: Vector) -> None:
    dek, envelope, record = (bytes.fromhex(vector[name]) for name in ("dek", "envelope", "record"))

    found = failure(lambda: decrypt_envelope(Dek(dek), envelope, owner=owner_of(vector), record=record))

    assert found == vector["expect"]


@each("envelope", "owners_must_fail")
def test_owner_vectors_fail_as_expected(vector: Vector) -> None:
    assert failure(lambda: Owner.decode(bytes.fromhex(vector["owner_bytes"]))) == vector["expect"]


def kek() -> rsa.RSAPrivateKey:
    numbers = FILES["dek_blob"]["kek"]
    p, q, n = (int(numbers[name], 16) for name in "pqn")
    d = rsa.rsa_recover_private_exponent(numbers["e"], p, q)
    public = rsa.RSAPublicNumbers(numbers["e"], n)
    return rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
    ).private_key()


@each("dek_blob", "must_pass")
async def test_dek_blob_vectors_pass(vector: Vector) -> None:
    dek, blob, key_id = (bytes.fromhex(vector[name]) for name in ("dek", "blob", "key_id"))
    suite, version, owner = Suite(vector["suite"]), vector["key_version"], owner_of(vector)
    wrapper = LocalKeyWrapper("tokens", keys={"1": kek()})

    unwrapped = await wrapper.unwrap(
        bytes.fromhex(vector["wrapped_dek"]), version="1", call_ids=wrapper.draw_call_ids()
    )

    assert unwrapped.blob == blob
    assert build_blob(dek, suite, key_id, version, owner) == blob
    assert open_blob(blob, suite, key_id, version, owner) == dek
    assert blob[1:33].hex() == vector["binding"]
    assert commitment(dek, suite, key_id, version).hex() == vector["commitment"]


@each("dek_blob", "must_fail")
def test_dek_blob_vectors_fail_as_expected(vector: Vector) -> None:
    blob, key_id, expected = (bytes.fromhex(vector[name]) for name in ("blob", "key_id", "commitment"))
    suite, version = Suite(vector["suite"]), vector["key_version"]

    def unwrap() -> None:
        dek = open_blob(blob, suite, key_id, version, owner_of(vector))
        check_commitment(expected, dek, suite, key_id, version)

    assert failure(unwrap) == vector["expect"]


def registry_of(name: str) -> Registry:
    return Registry.parse(FILES[name]["registry"].encode())


def signed(vector: Vector) -> SignedRecord:
    return SignedRecord(bytes.fromhex(vector["record"]), bytes.fromhex(vector["signature"]))


@each("key_record", "must_pass")
def test_key_record_vectors_pass(vector: Vector) -> None:
    record = verify_record(signed(vector), registry_of("key_record"), at_ms=vector["at_ms"])

    signer = Signer.from_private_bytes(bytes.fromhex(FILES["registry"]["private_keys"]["billing"]))
    assert sign_record(record, signer) == signed(vector)
    for name, expected in vector["fields"].items():
        found = getattr(record, name)
        if name in ("state", "reason"):
            found = found.code
        assert (found.hex() if isinstance(found, bytes) else found) == expected, name


def test_key_record_vectors_are_one_history() -> None:
    history = [bytes.fromhex(vector["record"]) for vector in FILES["key_record"]["must_pass"]]

    for previous, following in pairwise(history):
        check_successor(KeyRecord.decode(previous), previous, KeyRecord.decode(following))
    assert len(history) == 4


@each("key_record", "must_fail")
def test_key_record_vectors_fail_as_expected(vector: Vector) -> None:
    registry = registry_of("key_record")

    assert failure(lambda: verify_record(signed(vector), registry, at_ms=vector["at_ms"])) == vector["expect"]


@each("key_record", "successors_must_fail")
def test_key_record_successors_fail_as_expected(vector: Vector) -> None:
    previous, following = bytes.fromhex(vector["previous"]), bytes.fromhex(vector["following"])

    def follow() -> None:
        check_successor(KeyRecord.decode(previous), previous, KeyRecord.decode(following))

    assert failure(follow) == vector["expect"]


@each("approval", "must_pass")
def test_approval_vectors_pass(vector: Vector) -> None:
    signed_approval = SignedApproval.decode(vector["json"].encode())

    approval = verify_approval(signed_approval, registry_of("approval"), at_ms=vector["at_ms"]).approval

    for name, expected in vector["fields"].items():
        found = getattr(approval, name)
        assert (found.hex() if isinstance(found, bytes) else found) == expected, name
    assert Approval.decode(approval.encode()) == approval
    assert signed_approval.encode() == vector["json"].encode()
    signers = {
        signer.signer_id: signer for signer in (Signer.from_private_bytes(bytes([seed]) * 32) for seed in (3, 5))
    }
    assert sign_approval(approval, signers[approval.signer_id]) == signed_approval


@each("approval", "must_fail")
def test_approval_vectors_fail_as_expected(vector: Vector) -> None:
    registry = registry_of("approval")

    found = failure(
        lambda: verify_approval(SignedApproval.decode(vector["json"].encode()), registry, at_ms=vector["at_ms"])
    )

    assert found == vector["expect"]


def pair_of(jsons: list[str]) -> object:
    signed_approvals = [SignedApproval.decode(text.encode()) for text in jsons]
    at_ms = FILES["approval"]["at_ms"]
    return two_people(signed_approvals, registry_of("approval"), action=Action.DESTROY, at_ms=at_ms)


def test_the_approvals_of_two_people_are_enough() -> None:
    assert pair_of(FILES["approval"]["pair_must_pass"])


@each("approval", "pairs_must_fail")
def test_approval_pairs_fail_as_expected(vector: Vector) -> None:
    assert failure(lambda: pair_of(vector["jsons"])) == vector["expect"]


validator = Draft202012Validator(json_schema())


@each("event", "must_pass")
def test_event_vectors_pass(vector: Vector) -> None:
    raw = vector["line"].encode()

    line = decode_line(raw)

    assert decode_lines(raw + b"\n") == ([line], [raw])
    assert json.loads(encode_line(line)) == json.loads(raw)
    instance = bytes.fromhex(FILES["event"]["instance"])
    assert partition_of(partition_key(line, instance), 8) == vector["partition_of_8"]
    validator.validate(json.loads(raw))


@each("event", "must_fail")
def test_event_vectors_fail_as_expected(vector: Vector) -> None:
    raw = vector["line"].encode()

    assert failure(lambda: decode_line(raw)) == vector["expect"]
    word, _, field = vector["expect"].partition(" ")
    assert failure(lambda: decode_lines(raw + b"\n")) == f"{word} line 1: {field}"
    if vector["schema"] == "rejects":
        assert not validator.is_valid(json.loads(raw))


def opened(vector: Vector) -> Any:
    headers = [(name, bytes.fromhex(content)) for name, content in vector["headers"]]
    return open_batch(
        SealedBatch.from_headers(vector["value"].encode() * vector.get("repeat", 1), headers),
        registry_of("sealed_batch"),
        generation=vector["generation"],
        partition=vector["partition"],
        append_ms=vector["append_ms"],
    )


@each("sealed_batch", "must_pass")
def test_sealed_batch_vectors_pass(vector: Vector) -> None:
    batch = opened(vector)

    assert batch.digest.hex() == vector["digest"]
    assert batch.suspect is vector["suspect"]
    assert len(batch.lines) == batch.seal.count
    for name, expected in vector["seal"].items():
        found = getattr(batch.seal, name)
        assert (found.hex() if isinstance(found, bytes) else found) == expected, name


@each("sealed_batch", "must_pass")
def test_sealed_batch_vectors_are_sealed_the_same(vector: Vector) -> None:
    keys = FILES["registry"]["private_keys"]
    source = "crm" if '"service":"crm"' in vector["value"] else "billing"
    fields: Vector = {
        name: bytes.fromhex(item) if isinstance(item, str) else item for name, item in vector["seal"].items()
    }

    batch = seal_batch(
        vector["value"].encode() * vector.get("repeat", 1),
        signer=Signer.from_private_bytes(bytes.fromhex(keys[source])),
        **fields,
    )

    assert [[name, content.hex()] for name, content in batch.headers()] == vector["headers"]


@each("sealed_batch", "must_fail")
def test_sealed_batch_vectors_fail_as_expected(vector: Vector) -> None:
    assert failure(lambda: opened(vector)) == vector["expect"]


def test_partition_vectors_pass() -> None:
    for vector in FILES["sealed_batch"]["partitions"]:
        assert partition_of(bytes.fromhex(vector["key"]), vector["count"]) == vector["partition"]


@each("registry", "must_pass")
def test_registry_vectors_pass(vector: Vector) -> None:
    registry = Registry.parse(vector["text"].encode())

    assert json.loads(registry.encode()) == json.loads(vector["text"])


@each("registry", "must_fail")
def test_registry_vectors_fail_as_expected(vector: Vector) -> None:
    assert failure(lambda: Registry.parse(vector["text"].encode())) == vector["expect"]


def test_the_worked_example_of_the_page_is_the_first_vector_of_each_file() -> None:
    page = (VECTORS.parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    digits = "".join(page[page.index("## A worked example") : page.index("## The vectors")].split())
    envelope, blob, batch = (FILES[name]["must_pass"][0] for name in ("envelope", "dek_blob", "sealed_batch"))

    sealed = bytes.fromhex(envelope["envelope"])
    shown = [envelope["owner_bytes"], envelope["subkey"], envelope["plaintext"], envelope["record"]]
    shown += [sealed[:47].hex(), sealed[47:-16].hex(), sealed[-16:].hex(), blob["binding"], blob["commitment"]]
    shown += [batch["headers"][0][1], batch["headers"][1][1], batch["digest"]]
    assert [text for text in shown if text not in digits] == []


def test_the_event_of_the_page_is_a_vector() -> None:
    page = (VECTORS.parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")

    assert FILES["event"]["must_pass"][0]["line"] in page
