"""Who called: one principal out of the many spellings of the same claims."""

import re
from typing import Final

from alerts.model import Principal, PrincipalKind
from streams.vaultlogs.fields import Record, nested, text

OBJECT_ID: Final = "http://schemas.microsoft.com/identity/claims/objectidentifier"
UPN: Final = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn"
_HSM_OBJECT: Final = "http_schemas_microsoft_com_identity"
_HSM_PERSON: Final = "http_schemas_xmlsoap_org_ws_2005_05_identity"
_PROVIDER: Final = re.compile(r"/providers/([^/]+/[^/]+/[^/?#]+)$")
_SERVICES: Final = frozenset(
    {
        "microsoft.compute/diskencryptionsets",
        "microsoft.containerregistry/registries",
        "microsoft.documentdb/databaseaccounts",
        "microsoft.eventhub/namespaces",
        "microsoft.servicebus/namespaces",
        "microsoft.sql/managedinstances",
        "microsoft.sql/servers",
        "microsoft.storage/storageaccounts",
    },
)
"""Resources that encrypt under a customer's key, and in which a customer runs no code that could take their token."""
_APPLICATIONS: Final = {
    "262044b1-e2ce-469f-a196-69ab7ada62d3": "azure backup management service",
    "a6aa9161-5291-40bb-8c5c-923b567bee3b": "azure storage resource provider",
}
"""Applications of Microsoft's own that are given access to keys; nobody else holds a credential of theirs."""
NOBODY: Final = Principal(None, PrincipalKind.UNKNOWN)


def principal_of(claims: Record) -> Principal:
    """Name the caller: object id in any spelling, else app id, else the managed identity's resource.

    A UPN is a label, never the id: workloads have none, and people change theirs. What a token says of the resource
    whose managed identity it is, Entra says, not the caller.
    """
    if not claims:
        return NOBODY
    app_id = text(claims, "appid")
    ident = (
        text(claims, "oid")
        or text(claims, OBJECT_ID)
        or _in_claims(claims, _HSM_OBJECT, "objectidentifier")
        or app_id
        or text(claims, "xms_mirid")
        or text(claims, "xms_az_rid")
    )
    upn = text(claims, "upn") or text(claims, UPN) or _in_claims(claims, _HSM_PERSON, "upn")
    service = _APPLICATIONS.get((app_id or "").lower())
    resource = service or _resource(text(claims, "xms_mirid"))
    if upn is not None or text(claims, "scp") is not None:
        kind = PrincipalKind.USER
    elif service is not None or (resource is not None and resource.rpartition("/")[0] in _SERVICES):
        kind = PrincipalKind.AZURE_SERVICE
    else:
        kind = PrincipalKind.UNKNOWN if ident is None else PrincipalKind.WORKLOAD
    return Principal(
        None if ident is None else ident.lower(),
        kind,
        None if app_id is None else app_id.lower(),
        None if upn is None else upn.lower(),
        resource,
    )


def _resource(managed: str | None) -> str | None:
    """Return type and name of the resource that a managed identity belongs to, out of its resource id."""
    found = None if managed is None else _PROVIDER.search(managed.lower())
    return None if found is None else found[1]


def _in_claims(claims: Record, group: str, name: str) -> str | None:
    """Managed HSM nests what others spell as one long name."""
    if group not in claims:
        return None
    return text(nested(nested(claims, group), "claims"), name)
