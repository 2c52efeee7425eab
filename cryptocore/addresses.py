"""Whether an address is this machine: plaintext may go nowhere else unless somebody allows it."""

import ipaddress


def all_loopback(bootstrap: str) -> bool:
    """Say whether every `host:port` of a comma-separated list is a loopback address or `localhost`."""
    return all(is_loopback(address.rpartition(":")[0]) for address in bootstrap.split(","))


def is_loopback(host: str) -> bool:
    """Say whether a host, with or without brackets, is a loopback address or `localhost`."""
    host = host.strip("[] ")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
