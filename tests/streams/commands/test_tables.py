"""What a command lists is there whole at 80 columns: an id that a person copies is in one piece."""

from pathlib import Path

import pytest

from cryptocore.registry import Registry
from streams.commands.terminal import print_table
from tests.streams.commands.test_commands import run

AT_80 = {"FORCE_COLOR": "1", "COLUMNS": "80", "TERM": "dumb"}
ID = "0123456789abcdef" * 2


def test_signer_ids_and_principals_are_whole_at_80_columns(tmp_path: Path) -> None:
    principal = "8c1f0a9e-5b6d-4f7e-9a10-3d2c1b0a00e2"
    run("sources", "init", "--out", str(tmp_path), "--service", f"a-service-with-a-long-name={principal}")
    file = tmp_path / "sources.json"

    result = run("sources", "list", "--sources", str(file), **AT_80)

    lines = result.output.splitlines()
    assert any(principal in line for line in lines)
    assert any(Registry.load(file).signers[0].signer_id.hex() in line for line in lines)
    assert "…" not in result.output


def test_a_sentence_folds_beside_an_id_that_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in AT_80.items():
        monkeypatch.setenv(name, value)

    print_table(("key", "why"), [(ID, "a sentence that is far longer than the rest of the line has room for it")])

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(ID in line for line in lines) == 1
    assert "room" in " ".join(lines)


def test_a_row_of_many_ids_becomes_a_block_of_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in AT_80.items():
        monkeypatch.setenv(name, value)

    print_table(("key", "tenant", "event"), [(ID, ID[:20], ID), ("short", "", "x")])

    assert capsys.readouterr().out.splitlines() == [
        f"key: {ID}",
        f"tenant: {ID[:20]}",
        f"event: {ID}",
        "",
        "key: short",
        "event: x",
        "",
    ]


def test_a_name_that_a_stranger_wrote_cannot_give_the_terminal_orders(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "why"), [("ann\x1b]0;pwned\x07\u202e", "an\naccount\r"), ("Zoë …", "→ ·")])

    printed = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(printed)
    assert "ann?]0;pwned??" in printed
    assert "an?account?" in printed
    assert "Zoë …" in printed
    assert "→ ·" in printed
