"""Which vault and which object a record is about: resource ids, object ids, request URIs.

Names ignore case. A host is taken only when all of it is one of Key Vault's: what merely starts or looks like one is
rejected. Resource and hosts must name the same vault.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from streams.vaultlogs.fields import Fields
from streams.vaultlogs.rejection import Reason, VaultRecordRejected

HSM_HOST: Final = "managedhsm.azure.net"
HOSTS: Final = ("vault.azure.net", "vault.azure.cn", "vault.usgovcloudapi.net", HSM_HOST)
_CONTROL: Final = re.compile(
    r"management\.(azure\.com|chinacloudapi\.cn|usgovcloudapi\.net)"
    r"|[a-z0-9-]+\.vaultcore\.(azure\.net|azure\.cn|usgovcloudapi\.net)",
)
_URL: Final = re.compile(r"https://([^/?#]+)([^?#]*)", re.IGNORECASE)
_HOST: Final = re.compile(rf"([a-z0-9][a-z0-9-]{{0,126}})\.({'|'.join(map(re.escape, HOSTS))})(?::[0-9]{{1,5}})?")
_RESOURCE: Final = re.compile(
    r"(?:(?:^|/)providers/microsoft\.keyvault|^\.*)/(?:locations/[^/]+/)?(deleted)?(vaults|managedhsms)/([^/?#]+)",
)
_PROVIDER: Final = re.compile(r"(?:^|/)providers/(?!microsoft\.keyvault(?:/|$))")
_MASKED: Final = re.compile(r"[\[\]<>{}*]")
_NAME: Final = re.compile(r"[a-z0-9-]{1,127}")
_VERSION: Final = re.compile(r"[a-z0-9]{1,64}")
_KINDS: Final = {
    "keys": "key",
    "deletedkeys": "key",
    "secrets": "secret",
    "deletedsecrets": "secret",
    "certificates": "certificate",
    "deletedcertificates": "certificate",
}
_VERBS: Final = (
    "attestation backup create decrypt encrypt import merge pending policy purge recover release restore rotate "
    "rotationpolicy sign unwrapkey verify versions wrapkey"
)
_NOT_VERSIONS: Final = frozenset(_VERBS.split())
_NOT_NAMES: Final = frozenset({("certificate", "contacts"), ("certificate", "issuers")})


class Resource(NamedTuple):
    """A vault by its resource id; `vault` is None for an id above vaults (a subscription)."""

    vault: str | None
    hsm: bool


class Place(NamedTuple):
    """What a record is about, in lower case; None = the record does not say."""

    vault: str | None
    hsm: bool = False
    kind: str | None = None
    name: str | None = None
    version: str | None = None


NOWHERE: Final = Place(None)


@lru_cache(4096)
def resource(resource_id: str) -> Resource:
    """Read the vault out of a resource id in any case.

    Raises:
        VaultRecordRejected: it is a resource of another provider.
    """
    lower = resource_id.lower()
    match = _RESOURCE.search(lower)
    if match is not None:
        return Resource(match[3], match[2] == "managedhsms")
    if _PROVIDER.search(lower):
        raise VaultRecordRejected(Reason.OTHER_RESOURCE, "resourceId", "no resource of Microsoft.KeyVault")
    return Resource(None, hsm=False)


def url(value: str, field: str) -> Place:
    """Read an object id or request URI; NOWHERE where it cannot be parsed or is of the control plane.

    Raises:
        VaultRecordRejected: the host is none of Key Vault's.
    """
    return _url(value.partition("?")[0], field)


@lru_cache(16384)
def _url(value: str, field: str) -> Place:
    match = _URL.match(value)
    if match is None:
        return NOWHERE
    authority = match[1].lower() if match[1].isascii() else match[1]
    host = _HOST.fullmatch(authority)
    if host is None:
        if _MASKED.search(authority) or _CONTROL.fullmatch(authority):
            return NOWHERE
        raise VaultRecordRejected(Reason.FOREIGN_HOST, field, "its host is none of Key Vault's")
    here = Place(host[1], host[2] == HSM_HOST)
    parts = match[2].strip("/").lower().split("/")
    kind = _KINDS.get(parts[0])
    if kind is None:
        return here
    name = parts[1] if len(parts) > 1 else None
    if name is None or not _NAME.fullmatch(name) or (kind, name) in _NOT_NAMES:
        return here._replace(kind=kind) if name is None or (kind, name) in _NOT_NAMES else here
    version = parts[2] if len(parts) > 2 else None  # noqa: PLR2004 - kind, name, version
    if version is not None and (version in _NOT_VERSIONS or not _VERSION.fullmatch(version)):
        version = None
    return here._replace(kind=kind, name=name, version=version)


def place(fields: Fields, operation: str, feed_resource: str | None = None) -> Place:
    """Say which vault and object a record is about.

    Args:
        fields: the record.
        operation: its operation; control-plane ones have no request URI at the vault.
        feed_resource: the resource id that the feed knows, where it knows one.

    Raises:
        VaultRecordRejected: a foreign host, a vault that two of its fields name differently, no vault at all.
    """
    of_id = NOWHERE if fields.object_id is None else url(fields.object_id, "id")
    of_uri = NOWHERE
    if fields.request_uri is not None and not operation.startswith("Vault"):
        of_uri = url(fields.request_uri, "requestUri")
        if of_uri.name == "restore" and operation.endswith("Restore"):
            of_uri = of_uri._replace(name=None)
    known = NOWHERE
    for resource_id in (fields.resource_id, feed_resource):
        if resource_id is not None:
            found = resource(resource_id)
            known = _agreed(known, Place(found.vault, found.hsm), "resourceId")
    known = _agreed(_agreed(known, of_id, "id"), of_uri, "requestUri")
    above_vaults = operation.startswith("Vault") and (fields.resource_id or feed_resource) is not None
    if known.vault is None and not above_vaults:
        raise VaultRecordRejected(Reason.NO_VAULT, "resourceId", "names no vault, and neither do id and requestUri")
    about = of_id if of_id.name is not None or of_uri.kind is None else of_uri
    version = about.version
    if version is None and about is of_id and of_id.name is not None and of_id[2:4] == of_uri[2:4]:
        version = of_uri.version
    return Place(known.vault, known.hsm, about.kind, about.name, version)


def _agreed(known: Place, other: Place, field: str) -> Place:
    if other.vault is None:
        return known
    if known.vault is None:
        return other
    if (known.vault, known.hsm) != (other.vault, other.hsm):
        raise VaultRecordRejected(Reason.VAULT_MISMATCH, field, "names another vault than the record's resource")
    return known
