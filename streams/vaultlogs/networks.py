"""Where a call came from: the address without its port, and the network that a baseline may remember.

The network of a record is, by what it tells: the id of its subnet; `private` (private endpoint, private or shared
address space); `microsoft` (a trusted service of Azure itself); the /24 or /48 of a public address; else None.
A raw address means little: pods and NAT change it daily.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Final

from streams.vaultlogs.fields import Fields

PRIVATE: Final = "private"
MICROSOFT: Final = "microsoft"
_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
_WITH_PORT: Final = re.compile(r"\[([^\]]+)\](?::\d{1,5})?|([0-9.]+):\d{1,5}", re.ASCII)
_MAX: Final = 64


def located(fields: Fields) -> tuple[str | None, str | None]:
    """Return address and network; both None where the record does not tell or was redacted."""
    address, network = (None, None) if fields.address is None else parse(fields.address)
    subnet = fields.subnet_id
    if subnet is not None and subnet[:1] == "/":
        return address, subnet.lower()
    if fields.address_type is not None and "private" in fields.address_type.lower():
        return address, PRIVATE
    if _trusted(fields.trusted_service):
        return address, MICROSOFT
    return address, network


@lru_cache(8192)
def parse(value: str) -> tuple[str | None, str | None]:
    """Read `ip`, `ip:port`, `[v6]:port`; placeholders and host names are (None, None)."""
    if len(value) > _MAX:
        return None, None
    match = _WITH_PORT.fullmatch(value)
    plain = value if match is None else match[1] or match[2]
    try:
        ip = ipaddress.ip_address(plain.partition("%")[0])
    except ValueError:
        return None, None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_private or ip.is_link_local or (isinstance(ip, ipaddress.IPv4Address) and ip in _SHARED):
        return str(ip), PRIVATE
    prefix = 24 if isinstance(ip, ipaddress.IPv4Address) else 48
    return str(ip), str(ipaddress.ip_network((ip, prefix), strict=False))


def _trusted(value: object) -> bool:
    """The field names the service, or is empty."""
    return value is True or (isinstance(value, str) and value.lower() not in {"", "none", "false"})
