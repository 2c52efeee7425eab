"""The code of the pages on tokens and on incidents runs, in the order in which it stands there."""

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from cryptocore import Owner, acting, testing

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HOUR_MS = 3_600_000


@pytest.mark.parametrize(("page", "blocks"), [("tokens.md", 2), ("incidents.md", 2)])
async def test_the_code_of_the_page_runs(page: str, blocks: int) -> None:
    async with testing.core() as core:
        with acting(actor="user:1001", purpose="key-care"):
            await core.encrypt(b"x", owner=Owner.tenant("t-88", "crm"), record="r", create_missing=True)
            names: dict[str, Any] = {
                "core": core,
                "key_id": (await core.describe(Owner.tenant("t-88", "crm"))).key_id,
                "value": b"a value",
                "new_value": b"another",
                "expires_at_ms": core.clock.now_us() // 1000 + HOUR_MS,
            }
            found = BLOCK.findall((DOCS / page).read_text())
            for block in found:
                done = eval(compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
                if inspect.isawaitable(done):
                    await done
            if isinstance(names.get("task"), asyncio.Task):
                names["task"].cancel()

    assert len(found) == blocks
    assert names["value"] == b"a value"
