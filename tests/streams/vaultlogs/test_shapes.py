"""Properties over all records: any JSON gives an access or a reason, and one record in four shapes gives one access."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from alerts.model import VaultAccess
from streams.vaultlogs.messages import file_key
from streams.vaultlogs.normalise import VaultRecordRejected, normalise
from streams.vaultlogs.operations import KNOWN
from streams.vaultlogs.principals import OBJECT_ID, UPN
from tests.streams.vaultlogs.records import (
    RESOURCE,
    VERSION,
    Record,
    as_azkv,
    as_diagnostics,
    as_managed_hsm,
    record,
)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just("None")
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
SOURCES = [
    record("KeyUpdate", keyProperties={"attributes": {"enabled": True, "exp": 1}, "operations": ["sign"]}),
    as_diagnostics(record("KeyUpdate", keyProperties={"attributes": {"enabled": True}, "operations": ["sign"]})),
    as_azkv(record(), identity_as_text=True),
    as_managed_hsm(record()),
    {"id": "1", "topic": RESOURCE, "eventType": "Microsoft.KeyVault.KeyExpired", "eventTime": "", "data": {}},
    {"id": "1", "source": RESOURCE, "type": "Microsoft.KeyVault.KeyExpired", "time": "", "specversion": "1.0"},
    {"time": "", "operationName": "MICROSOFT.KEYVAULT/VAULTS/WRITE", "resourceId": RESOURCE, "resultType": "Start"},
]


def is_access_or_reason(original: Any) -> None:
    key = file_key(original)
    try:
        access = normalise(original)
    except VaultRecordRejected:
        return  # a reason: whatever else is raised fails the test
    assert msgspec.json.decode(msgspec.json.encode(access), type=VaultAccess) == access
    assert access.vault is None or key == f"{access.vault}/{access.object_name or ''}".encode()


@given(st.dictionaries(st.text() | st.sampled_from(sorted({key for one in SOURCES for key in one})), JSON))
def test_any_json_gives_an_access_or_a_reason(original: Record) -> None:
    is_access_or_reason(original)


@given(st.data())
def test_a_record_with_any_value_anywhere_gives_an_access_or_a_reason(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from(SOURCES))
    changed = msgspec.json.decode(msgspec.json.encode(original))
    place = changed
    while True:
        key = data.draw(st.sampled_from(sorted(place)) if place else st.text())
        if isinstance(place.get(key), dict) and data.draw(st.booleans()):
            place = place[key]
        else:
            place[key] = data.draw(JSON)
            break

    is_access_or_reason(changed)


IDENTS = st.uuids().map(str)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={"oid": IDENTS, "appid": IDENTS, "upn": st.emails(), "scp": st.just("user_impersonation")},
)
CALLERS = st.sampled_from(["20.50.1.7", "20.50.1.7:1234", "[2603:1020::1]:443", "10.0.0.1", "<Redacted>", ""])


@st.composite
def envelopes(draw: st.DrawFn) -> Record:
    """Records that all four shapes can carry: authorisation flags are not in Managed HSM's."""
    hsm = draw(st.booleans())
    host = f"https://kt-prod.{'managedhsm' if hsm else 'vault'}.azure.net"
    name = draw(st.from_regex(r"[A-Za-z0-9-]{1,20}", fullmatch=True))
    version = draw(st.sampled_from(["", f"/{VERSION}"]))
    key = draw(
        st.fixed_dictionaries(
            {
                "attributes": st.fixed_dictionaries(
                    {}, optional={"enabled": st.booleans(), "exp": st.integers(1, 2**31)}
                )
            },
            optional={"operations": st.lists(st.sampled_from(["sign", "wrapKey", "unwrapKey"]))},
        ),
    )
    envelope = record(
        draw(st.sampled_from(sorted(KNOWN)) | st.just("KeyTeleport")),
        draw(st.sampled_from([200, 201, 401, 403, 404, 409, 429, 500])),
        id=draw(st.sampled_from([None, f"{host}/keys/{name}{version}", f"{host}/"])),
        requestUri=f"{host}/keys/{name}{version}/backup?api-version=7.6",
        keyProperties=key,
        isRbacAuthorized=None,
        subnetId=draw(st.sampled_from([None, "/Subscriptions/S/Subnets/A"])),
    )
    claims = draw(CLAIMS)
    return envelope | {
        "identity": {"claim": claims} if claims else {},
        "callerIpAddress": draw(CALLERS),
        "correlationId": draw(IDENTS | st.just("")),
        "resourceId": RESOURCE.replace("VAULTS", "MANAGEDHSMS") if hsm else RESOURCE,
        "resultDescription": draw(st.sampled_from(["", "not allowed on a disabled key", "None"])),
    }


@given(envelopes())
def test_one_record_in_four_shapes_is_one_access(envelope: Record) -> None:
    expected = normalise(envelope)

    rows = [as_diagnostics(envelope), as_azkv(envelope), as_azkv(envelope, identity_as_text=True)]
    for other in (*rows, as_managed_hsm(envelope)):
        access = normalise(other)
        assert msgspec.structs.replace(access, shape=expected.shape) == expected


@given(envelopes(), st.booleans())
def test_both_spellings_of_the_claims_are_one_principal(envelope: Record, flag: bool) -> None:
    envelope["properties"]["isRbacAuthorized"] = flag
    claims = envelope["identity"].get("claim", {})
    renamed = {{"oid": OBJECT_ID, "upn": UPN}.get(name, name): value for name, value in claims.items()}

    long = envelope | {"identity": {"claim": renamed}}

    assert normalise(long) == normalise(envelope)
    assert normalise(as_diagnostics(long)).principal == normalise(envelope).principal
    assert normalise(as_diagnostics(long)).denial == normalise(as_azkv(envelope)).denial
