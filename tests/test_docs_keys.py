"""The code of the page on keys runs, and its file of copies is one."""

import re
from pathlib import Path
from typing import Any

from cryptocore.life.copies import Copies

PAGE = (Path(__file__).parent.parent / "docs" / "keys.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


async def test_the_code_of_the_page_on_keys_runs_and_its_tests_pass(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    for kind, block in BLOCK.findall(PAGE):
        if kind == "python":
            exec(compile(block, "docs/keys.md", "exec"), names)

    tests = [test for name, test in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        await test()
    [shown] = [block for kind, block in BLOCK.findall(PAGE) if kind == "toml"]
    (tmp_path / "copies.toml").write_text(shown)
    assert names["copies"](tmp_path / "copies.toml") == Copies.parse(shown)


def test_every_act_that_the_page_names_is_one_of_the_core() -> None:
    from cryptocore.core import CryptoCore  # noqa: PLC0415 - only this test needs it

    table = PAGE[PAGE.index("## Acts") : PAGE.index("## Rotation, rewrap")]
    named = {name for name in re.findall(r"`(\w+)[`(]", table) if name.islower()}
    arguments = {"reason", "version", "actor", "purpose", "note"}
    assert sorted(name for name in named - arguments if not hasattr(CryptoCore, name)) == []
