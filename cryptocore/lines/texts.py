"""The texts a line may hold: their patterns, and a memory of those already matched.

A fleet says the same few thousand words all day, so a text is matched once and then looked up.
"""

import re
from calendar import monthrange
from typing import Final

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer a line may hold: what every JSON reader keeps exact."""
MAX_VERSION: Final = 2**32 - 1
MAX_NOTE: Final = 512
MAX_CALL_IDS: Final = 16
MAX_COUNTS: Final = 64

UUID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
HEX16: Final = "[0-9a-f]{32}"
HEX32: Final = "[0-9a-f]{64}"
DATE: Final = "(?:19[7-9][0-9]|[2-9][0-9]{3})-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
TIME_OF_DAY: Final = "T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9][.][0-9]{6}Z"
SERVICE: Final = "[a-z0-9][a-z0-9._-]{0,63}"
PURPOSE: Final = "[a-z0-9][a-z0-9._-]{0,63}"
ACTOR: Final = "[a-z][a-z0-9-]{0,31}:[!-~]{1,128}"
OWNER_PART: Final = "[!-~]{1,128}"
HOST: Final = "[0-9A-Za-z][0-9A-Za-z._-]{0,252}"
ADDRESS: Final = "[0-9a-f:.]{2,45}"
TRACE_ID: Final = "[0-9A-Za-z._-]{1,64}"
REQUEST_ID: Final = "[!-~]{1,128}"
VAULT: Final = "[a-z0-9][a-z0-9.:_-]{0,126}"
KEK_NAME: Final = "[a-z0-9][a-z0-9-]{0,126}"
KEK_VERSION: Final = "[a-z0-9][a-z0-9_-]{0,63}"
NOTE: Final = "[^\\x00-\\x1f\\x7f-\\x9f]{1,512}"
PERSON: Final = "user:"
"""The kind of actor that is a person, and so may leave a note."""

_REMEMBERED: Final = 65_536


class _Texts(dict[str, bool]):
    """Texts already found to match; asking for another one matches it."""

    def __init__(self, pattern: str) -> None:
        super().__init__()
        self._pattern = re.compile(pattern)

    def __missing__(self, text: str) -> bool:
        if self._pattern.fullmatch(text) is None:
            return False
        if len(self) >= _REMEMBERED:
            self.clear()
        self[text] = True
        return True


class _Dates(_Texts):
    """Calendar days; the pattern cannot know the length of each month."""

    def __missing__(self, text: str) -> bool:
        return self._pattern.fullmatch(text) is not None and _is_in_month(text) and super().__missing__(text)


is_uuid = re.compile(UUID).fullmatch
# Not remembered: a fleet has a million keys, and matching again is cheap.
is_key_id = re.compile(HEX16).fullmatch
is_digest = re.compile(HEX32).fullmatch
is_time_of_day = re.compile(TIME_OF_DAY).fullmatch
dates = _Dates(DATE)
services = _Texts(SERVICE)
purposes = _Texts(PURPOSE)
actors = _Texts(ACTOR)
owner_parts = _Texts(OWNER_PART)
hosts = _Texts(HOST)
addresses = _Texts(ADDRESS)
vaults = _Texts(VAULT)
kek_names = _Texts(KEK_NAME)
kek_versions = _Texts(KEK_VERSION)
is_trace_id = re.compile(TRACE_ID).fullmatch
is_request_id = re.compile(REQUEST_ID).fullmatch
is_note = re.compile(NOTE).fullmatch


def _is_in_month(date: str) -> bool:
    year, month, day = (int(part) for part in date.split("-"))
    return day <= monthrange(year, month)[1]
