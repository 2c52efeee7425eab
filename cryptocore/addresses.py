"""Whether an address is this machine: plaintext may go nowhere else unless somebody allows it."""

import ipaddress


def all_loopback(bootstrap: str) -> bool:
    """Say whether every `host:port` of a comma-separated list is a loopback address or `localhost`."""
    return all(_is_loopback(address.rpartition(":")[0].strip("[] ")) for address in bootstrap.split(","))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
