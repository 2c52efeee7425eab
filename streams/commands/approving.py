"""Approval files: JSON, one approval a line. Signed by a person's own key, which stays where it is."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from streams.commands.terminal import fail

if TYPE_CHECKING:
    from cryptocore.life.approvals import Action, SignedApproval
    from cryptocore.records import SignedRecord
    from cryptocore.signing import Signer

Approvals = Annotated[
    list[Path], typer.Option("--approvals", help="A file of `keytrail keys approve`; one of each person. Repeatable.")
]
MAX_FILE: Final = 16 * 1024 * 1024
_HOUR_MS: Final = 3_600_000
_SKEW_MS: Final = 60_000
"""An approval begins a minute ago: the database judges it by its own clock."""


def read(files: Iterable[Path]) -> "list[SignedApproval]":
    """Read approvals, or end with what is wrong."""
    from cryptocore.life.approvals import ApprovalInvalid, SignedApproval

    found = []
    for file in files:
        for number, line in enumerate(content_of(file).splitlines(), 1):
            if not line.strip():
                continue
            try:
                found.append(SignedApproval.decode(line))
            except ApprovalInvalid as problem:
                raise fail(f"{file}, line {number}: {problem.field}: {problem.problem}") from None
    return found


def content_of(file: Path) -> bytes:
    """Read a file, or end with what is wrong."""
    try:
        if file.stat().st_size > MAX_FILE:
            raise fail(f"{file} is longer than {MAX_FILE:,} bytes")
        return file.read_bytes()
    except OSError as problem:
        raise fail(f"{file}: {problem.strerror}") from None


def write_new(file: Path, content: bytes) -> None:
    """Write a file that is not there yet, or end with what is wrong."""
    try:
        with file.open("xb") as out:
            out.write(content)
    except FileExistsError:
        raise fail(f"{file} is there already; nothing was written") from None
    except OSError as problem:
        raise fail(f"{file}: {problem.strerror}") from None


def of_record(action: "Action", record: "SignedRecord", signer: "Signer", *, now_ms: int, hours: int) -> bytes:
    """Approve an act on a key version as its record is now; gives one line."""
    from cryptocore.life.approvals import NONCE_SIZE, Approval, sign_approval

    made = Approval.of_key(
        action,
        record,
        not_before_ms=now_ms - _SKEW_MS,
        expires_ms=now_ms + hours * _HOUR_MS - _SKEW_MS,
        nonce=os.urandom(NONCE_SIZE),
        signer_id=signer.signer_id,
    )
    return sign_approval(made, signer).encode() + b"\n"


def of_statement(
    action: "Action", statement: bytes, signer: "Signer", *, deployment: bytes, now_ms: int, hours: int
) -> bytes:
    """Approve the very bytes of a statement; gives one line."""
    from cryptocore.life.approvals import NONCE_SIZE, Approval, sign_approval

    made = Approval.of_file(
        action,
        statement,
        deployment=deployment,
        not_before_ms=now_ms - _SKEW_MS,
        expires_ms=now_ms + hours * _HOUR_MS - _SKEW_MS,
        nonce=os.urandom(NONCE_SIZE),
        signer_id=signer.signer_id,
    )
    return sign_approval(made, signer).encode() + b"\n"
