"""The declaration of vaults: read with errors that name the place, and held against what was seen."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.model import Severity
from alerts.thresholds import DAY_MS, HOUR_MS
from streams.feeds.vaults import Seen, VaultDeclarations, VaultsInvalid, coverage_findings

NOW = 1_794_796_867_000
RESOURCE = "/subscriptions/7fe1/resourceGroups/prod/providers/Microsoft.KeyVault/vaults"
WHOLE = f"""
[[vault]]
name = "KV-Prod"
resource_id = "{RESOURCE}/kv-prod"
owner = "platform team"
keks = ["Tenant-KEK", "tokens-kek"]
quiet_hours = 6

[[vault.principal]]
id = "8C1F0A9E-0000-4000-8000-0000000000E2"
owner = "billing"
purpose = "unwraps tenant DEKs"

[[vault]]
name = "kv-test"
resource_id = "{RESOURCE}/KV-TEST"
owner = "platform team"
"""


def test_a_whole_file_is_read_in_lower_case() -> None:
    declared = VaultDeclarations.parse(WHOLE)

    prod, test = declared.vaults["kv-prod"], declared.vaults["kv-test"]
    assert prod.keks == ("tenant-kek", "tokens-kek")
    assert (prod.quiet_ms, test.quiet_ms) == (6 * HOUR_MS, DAY_MS)
    assert [one.id for one in prod.principals] == ["8c1f0a9e-0000-4000-8000-0000000000e2"]
    assert test.resource_id == f"{RESOURCE}/kv-test".lower()


@pytest.mark.parametrize(
    ("line", "instead", "field", "problem"),
    [
        ('owner = "platform team"', "", "vault 1 (kv-prod).owner", "missing"),
        ('owner = "platform team"', "owner = 7", "vault 1 (kv-prod).owner", "must be a text"),
        ('name = "KV-Prod"', 'name = "kv_prod"', "vault 1.name", "no name of a vault"),
        (f'resource_id = "{RESOURCE}/kv-prod"', "", "vault 1 (kv-prod).resource_id", "missing"),
        (f"{RESOURCE}/kv-prod", f"{RESOURCE}/other", "vault 1 (kv-prod).resource_id", "names other, not kv-prod"),
        (f"{RESOURCE}/kv-prod", "/subscriptions/7fe1", "vault 1 (kv-prod).resource_id", "names no vault"),
        (
            f"{RESOURCE}/kv-prod",
            "/subscriptions/1/providers/Microsoft.Compute/vaults/kv-prod",
            "vault 1 (kv-prod).resource_id",
            "no resource of Microsoft.KeyVault",
        ),
        ("quiet_hours = 6", "quiet_hours = 0", "vault 1 (kv-prod).quiet_hours", "from 1 to 744"),
        ("quiet_hours = 6", "quiet_hours = true", "vault 1 (kv-prod).quiet_hours", "from 1 to 744"),
        ("quiet_hours = 6", "quite_hours = 6", "vault 1.quite_hours", "not known"),
        ('"tokens-kek"]', '"tenant-kek"]', "vault 1 (kv-prod).keks", "there twice"),
        ('"tokens-kek"]', "5]", "vault 1 (kv-prod).keks", "list of names"),
        ('owner = "billing"', "", "vault 1 (kv-prod).principal 1.owner", "missing"),
        ("8C1F0A9E-", "8C1F-", "vault 1 (kv-prod).principal 1.id", "neither an object id"),
        ('name = "kv-test"', 'name = "kv-prod"', "vault 2 (kv-prod).resource_id", "names kv-test"),
        ("[[vault.principal]]", "[vault.principal]", "vault 1 (kv-prod).principal", "must be written as"),
    ],
)
def test_an_error_names_record_and_field(line: str, instead: str, field: str, problem: str) -> None:
    assert line in WHOLE

    with pytest.raises(VaultsInvalid) as caught:
        VaultDeclarations.parse(WHOLE.replace(line, instead, 1))

    assert caught.value.field == field
    assert problem in caught.value.problem


def test_a_vault_that_is_declared_twice_an_empty_file_and_no_file_are_refused(tmp_path: Path) -> None:
    twice = WHOLE + WHOLE.split("[[vault]]", maxsplit=2)[2].join(["[[vault]]", ""])

    for text, problem in ((twice, "declared twice"), ("", "declares no"), ("vault = 1", "[[vault]]"), ("[", "TOML")):
        with pytest.raises(VaultsInvalid, match=re.escape(problem)):
            VaultDeclarations.parse(text)
    with pytest.raises(VaultsInvalid, match="cannot be read"):
        VaultDeclarations.load(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b'owner = "caf\xe9"')
    with pytest.raises(VaultsInvalid, match="not UTF-8"):
        VaultDeclarations.load(tmp_path / "latin.toml")


def test_a_declared_vault_is_silent_after_its_own_quiet_time_and_not_before() -> None:
    declared = VaultDeclarations.parse(WHOLE)
    seen = {"kv-prod": Seen(NOW - DAY_MS, NOW - 6 * HOUR_MS), "kv-test": Seen(NOW - DAY_MS, NOW - 6 * HOUR_MS)}

    due = coverage_findings(declared, seen, since_ms=NOW - 9 * DAY_MS, now_ms=NOW)
    early = coverage_findings(declared, seen, since_ms=NOW - 9 * DAY_MS, now_ms=NOW - 1)

    assert [(one.rule_id, one.key, one.severity) for one in due] == [("vault_silent", "kv-prod", Severity.HIGH)]
    assert "platform team" in due[0].summary
    assert early == []


def test_a_vault_that_never_spoke_is_silent_since_anybody_looked() -> None:
    declared = VaultDeclarations.parse(WHOLE)

    found = coverage_findings(declared, {}, since_ms=NOW - DAY_MS, now_ms=NOW)

    assert {one.key for one in found} == {"kv-prod", "kv-test"}
    assert "no record has ever come" in found[0].summary
    assert coverage_findings(declared, {}, since_ms=NOW - HOUR_MS, now_ms=NOW) == []


def test_a_vault_that_is_seen_and_not_declared_is_said() -> None:
    seen = {name: Seen(NOW - HOUR_MS, NOW) for name in ("kv-prod", "kv-test", "kv-shadow")}

    [found] = coverage_findings(VaultDeclarations.parse(WHOLE), seen, since_ms=NOW - DAY_MS, now_ms=NOW)

    assert (found.rule_id, found.key, found.effective_ms) == ("vault_undeclared", "kv-shadow", NOW - HOUR_MS)


@given(st.text(max_size=200) | st.text("[]=\"'.\nvaultnme 10", max_size=200))
def test_any_text_is_a_declaration_or_an_error_that_says_where(text: str) -> None:
    try:
        declared = VaultDeclarations.parse(text)
    except VaultsInvalid as caught:
        declared, problem = None, str(caught)
    else:
        problem = ""

    assert (declared is None) is bool(problem)
