"""`keytrail sources`: each change gives a file that services and workers can use."""

import json
from pathlib import Path

from cryptocore.clock import SystemClock
from cryptocore.registry import Registry, Role
from cryptocore.signing import Signer
from streams.commands.terminal import WRONG_USE
from tests.streams.commands.test_commands import run

DAY_MS = 86_400_000


def drawn(folder: Path) -> Path:
    assert (
        run("sources", "init", "--out", str(folder), "--service", "key-admin", "--service", "billing=AAAA-1").exit_code
        == 0
    )
    return folder / "sources.json"


def test_what_is_no_principal_is_refused_in_a_sentence_and_nothing_is_written(tmp_path: Path) -> None:
    result = run("sources", "init", "--out", str(tmp_path / "dev"), "--service", "billing=Bob Smith")

    assert result.exit_code == WRONG_USE
    assert "--service billing=Bob Smith: signers[0].vault_principals" in " ".join(result.stderr.split())
    assert list((tmp_path / "dev").iterdir()) == []


def test_a_key_rotates_with_overlap_and_the_old_signer_keeps_what_it_signed(tmp_path: Path) -> None:
    file = drawn(tmp_path)
    old = Registry.load(file).signers[1]
    now = SystemClock().now_us() // 1000

    added = run(
        "sources", "add", "billing", "--role", "events", "--new-key", str(tmp_path / "b2.key"), "--sources", str(file)
    )
    both = Registry.load(file)
    retired = run("sources", "retire", old.signer_id.hex()[:10], "--sources", str(file))
    after = Registry.load(file)

    new = Signer.from_file(tmp_path / "b2.key")
    assert (added.exit_code, retired.exit_code) == (0, 0)
    assert [
        one.signer_id for one in both.signers if one.source == "billing" and one.usable(Role.EVENTS, now + 60_000)
    ] == [
        old.signer_id,
        new.signer_id,
    ]
    ended = after.get(old.signer_id)
    assert ended is not None
    assert ended.usable(Role.EVENTS, now - 1) or ended.valid_from_ms >= now - 1
    assert not ended.usable(Role.EVENTS, now + DAY_MS)
    assert after.source_of_principal("aaaa-1") == "billing"
    assert new.private_bytes().hex() not in added.output


def test_a_source_that_loses_its_last_signer_of_a_role_is_named(tmp_path: Path) -> None:
    file = drawn(tmp_path)
    signer = Registry.load(file).signers[0]

    result = run("sources", "retire", signer.signer_id.hex(), "--sources", str(file))

    assert "key-admin has no signer for keys after that" in result.stderr


def test_a_compromised_signer_is_marked_from_then_on(tmp_path: Path) -> None:
    file = drawn(tmp_path)
    signer = Registry.load(file).signers[1]

    result = run(
        "sources", "compromised", signer.signer_id.hex(), "--at", "2026-11-20T08:00:00Z", "--sources", str(file)
    )

    marked = Registry.load(file).get(signer.signer_id)
    assert result.exit_code == 0
    assert marked is not None
    assert marked.compromised_from_ms == 1_795_161_600_000
    listed = json.loads(run("sources", "list", "--json", "--sources", str(file)).stdout)
    assert [row["state"] for row in listed] == ["valid", "compromised"]


def test_what_cannot_be_is_refused_with_a_sentence_and_changes_nothing(tmp_path: Path) -> None:
    file = drawn(tmp_path)
    before = file.read_bytes()
    other = Signer.generate()
    wrong = [
        ("add", "billing", "--role", "events"),
        ("add", "billing", "--role", "root", "--public-key", other.public_key.hex()),
        ("add", "billing", "--role", "events", "--public-key", "zz"),
        ("add", "ann", "--role", "approve", "--public-key", other.public_key.hex()),
        ("add", "else", "--role", "events", "--public-key", other.public_key.hex(), "--principal", "aaaa-1"),
        ("add", "billing", "--role", "events", "--new-key", str(tmp_path / "billing.key")),
        ("retire", "nobody"),
        ("retire", ""),
        ("compromised", Registry.load(file).signers[0].signer_id.hex(), "--at", "yesterday"),
    ]
    for arguments in wrong:
        result = run("sources", *arguments, "--sources", str(file))
        assert result.exit_code == WRONG_USE, arguments
        assert result.stderr.startswith("keytrail: "), arguments
        assert "Traceback" not in result.output
    assert file.read_bytes() == before
