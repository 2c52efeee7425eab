"""A short turn of the fuzzer on every parser, and one crash campaign of a few dozen kills; long ones are commands."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptocore.errors import FormatError, RegistryInvalid
from cryptocore.registry import Registry
from tests.cryptocore.crash_campaign import campaign
from tests.cryptocore.fuzz import VECTORS, Target, run, targets, try_one

TARGETS = targets()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_changed_bytes_are_refused_by_the_formats_error_or_written_back(target: Target) -> None:
    assert run(target, 1_500, seed=7).inputs == 1_500


@given(raw=st.binary(max_size=300), place=st.integers(0, len(TARGETS) - 1))
def test_any_bytes_are_refused_by_the_formats_error_or_written_back(raw: bytes, place: int) -> None:
    try_one(TARGETS[place], raw)


def test_the_fuzzer_notices_a_parser_that_fails_otherwise() -> None:
    def check(raw: bytes) -> None:
        if len(raw) % 7 == 0:
            raise KeyError(raw)
        raise FormatError("x", "y")

    with pytest.raises(AssertionError, match="KeyError of"):
        run(Target("faulty", (b"seed of some bytes",), check), 200, seed=1)


def test_a_person_that_utf_8_cannot_write_is_refused() -> None:
    document = json.loads(json.loads((VECTORS / "registry.json").read_text())["must_pass"][0]["text"])
    document["signers"][2]["person"] = "Alice \ud800 Example"

    with pytest.raises(RegistryInvalid, match=r"signers\[2\]\.person"):
        Registry.parse(json.dumps(document).encode())


@pytest.mark.faults
@pytest.mark.parametrize("durability", ["volume", "broker"])
def test_killed_at_random_points_no_event_of_a_result_that_was_handed_out_is_lost(
    tmp_path: Path, durability: str
) -> None:
    result = campaign(tmp_path, durability, kills=18, seed=3)

    assert (result.lost, result.doubled) == (0, 0), str(result)
    assert result.handed_out > 18, str(result)
