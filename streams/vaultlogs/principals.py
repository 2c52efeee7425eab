"""Who called: one principal out of the many spellings of the same claims."""

from typing import Final

from alerts.model import Principal, PrincipalKind
from streams.vaultlogs.fields import Record, nested, text

OBJECT_ID: Final = "http://schemas.microsoft.com/identity/claims/objectidentifier"
UPN: Final = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn"
_HSM_OBJECT: Final = "http_schemas_microsoft_com_identity"
_HSM_PERSON: Final = "http_schemas_xmlsoap_org_ws_2005_05_identity"
NOBODY: Final = Principal(None, PrincipalKind.UNKNOWN)


def principal_of(claims: Record) -> Principal:
    """Name the caller: object id in any spelling, else app id, else the managed identity's resource.

    A UPN is a label, never the id: workloads have none, and people change theirs.
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
    if upn is not None or text(claims, "scp") is not None:
        kind = PrincipalKind.USER
    else:
        kind = PrincipalKind.UNKNOWN if ident is None else PrincipalKind.WORKLOAD
    return Principal(
        None if ident is None else ident.lower(),
        kind,
        None if app_id is None else app_id.lower(),
        None if upn is None else upn.lower(),
    )


def _in_claims(claims: Record, group: str, name: str) -> str | None:
    """Managed HSM nests what others spell as one long name."""
    if group not in claims:
        return None
    return text(nested(nested(claims, group), "claims"), name)
