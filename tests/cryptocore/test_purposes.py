"""purposes.toml: declared purposes are taken, others are refused by name, before anything is done."""

from pathlib import Path

import pytest

from cryptocore import Owner, acting, testing
from cryptocore.errors import PurposesInvalid, UnknownPurpose
from cryptocore.events import Operation
from cryptocore.purposes import Purposes

FILE = """
[[purpose]]
id = "crm-sync"
services = ["tested", "crm-worker"]
batch = true

[[purpose]]
id = "invoice"
services = ["billing"]
"""
OWNER = Owner.secret("smtp-password")


def test_the_file_says_who_may_give_a_purpose_and_whether_it_comes_in_batches(tmp_path: Path) -> None:
    (tmp_path / "purposes.toml").write_text(FILE)
    purposes = Purposes.load(tmp_path / "purposes.toml")

    assert purposes.of("tested") == {"crm-sync"}
    assert purposes.of("nobody") == frozenset()
    crm, invoice = purposes.get("crm-sync"), purposes.get("invoice")
    assert crm is not None
    assert invoice is not None
    assert (crm.batch, invoice.batch) == (True, False)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "purpose"),
        ("purpose = 1", "purpose"),
        ("[[purpose]", "file"),
        ("surprise = 1\n" + FILE, "surprise"),
        (FILE + FILE, "purpose"),
        ('[[purpose]]\nid = "Crm"\nservices = ["a"]', "purpose[0].id"),
        ('[[purpose]]\nservices = ["a"]', "purpose[0].id"),
        ('[[purpose]]\nid = "a"', "purpose[0].services"),
        ('[[purpose]]\nid = "a"\nservices = []', "purpose[0].services"),
        ('[[purpose]]\nid = "a"\nservices = ["A B"]', "purpose[0].services"),
        ('[[purpose]]\nid = "a"\nservices = ["a"]\nbatch = "yes"', "purpose[0].batch"),
        ('[[purpose]]\nid = "a"\nservices = ["a"]\nbacth = true', "purpose[0].bacth"),
    ],
)
def test_a_file_that_breaks_a_rule_names_the_place(text: str, field: str) -> None:
    with pytest.raises(PurposesInvalid) as raised:
        Purposes.parse(text)

    assert raised.value.field == field


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PurposesInvalid, match=r"purposes\.toml cannot be read"):
        Purposes.load(tmp_path / "purposes.toml")


async def test_an_undeclared_purpose_and_that_of_another_service_are_refused_before_anything_is_done() -> None:
    async with testing.core(purposes=Purposes.parse(FILE)) as core:
        with acting(actor="user:4711"):
            for purpose, problem in (("crm-snyc", "'crm-snyc' is not declared"), ("invoice", "not for the service")):
                with pytest.raises(UnknownPurpose, match=problem):
                    await core.encrypt(b"x", owner=OWNER, record="r", purpose=purpose, create_missing=True)
                with pytest.raises(UnknownPurpose, match=problem):
                    await core.decrypt(b"x", owner=OWNER, record="r", purpose=purpose)
                with pytest.raises(UnknownPurpose, match=problem):
                    await core.create_key(OWNER, purpose=purpose)
            await core.relay()
            with pytest.raises(UnknownPurpose):  # nobody is excused for calling himself a process of ours
                await core.create_key(OWNER, actor="process:anything", purpose="crm-snyc")
            assert list(core.events) == []

            stored = await core.encrypt(b"x", owner=OWNER, record="r", purpose="crm-sync", create_missing=True)
            await core.decrypt(stored, owner=OWNER, record="r", purpose="crm-sync")
        assert len(core.events.only(Operation.DECRYPT)) == 1
