"""What goes wrong in the simulated week, and honest noise around it: an act is a coroutine that plays on the stage."""

import base64

from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest

from cryptocore.errors import Denied
from streams.demo.company import INTERNAL, KEKS, PROD
from streams.demo.stage import Stage

STOLEN_UNWRAPS = 13
REVOKED_TRIES = 4


async def wrong_context(stage: Stage) -> None:
    """Billing looks for tokens in the wrong place: honest, but every one fails."""
    process = stage.process("billing")
    owner = stage.owner("billing")
    for record, ciphertext in await stage.stock(process, owner):
        try:
            await process.core.decrypt(
                ciphertext, owner=owner, record=f"{record}/old", actor="job:billing", purpose="nightly-sync"
            )
        except Denied:
            continue


async def use_revoked(stage: Stage) -> None:
    """Invoicing was not told, and tries all the same, when no cache can be that old any more."""
    await stage.wait(61)
    process = stage.process("invoicing")
    owner = stage.owner("invoicing")
    for record, ciphertext in stage.rows.by_owner[owner][:REVOKED_TRIES]:
        try:
            await process.core.decrypt(ciphertext, owner=owner, record=record, actor="job:invoicing", purpose="export")
        except Denied:
            continue


async def stolen_identity(stage: Stage) -> None:
    """Someone has the identity of the deployment pipeline and a copy of the key table, and goes straight to the vault.

    The last request carries the call id of a live event of ours, to look as if it had been one.
    """
    wrapped = stage.world.wrapped_deks("tenant-kek")
    copied = stage.tape.last_call_id(PROD)
    async with stage.client("ci-deploy", PROD) as client:
        for number in range(STOLEN_UNWRAPS + 1):
            version, blob = wrapped[number % len(wrapped)]
            headers = {"x-ms-client-request-id": copied} if number == STOLEN_UNWRAPS else {}
            body = {"alg": "RSA-OAEP-256", "value": base64.urlsafe_b64encode(blob).rstrip(b"=").decode()}
            path = f"keys/{KEKS['tenant-kek'][1]}/{version}/unwrapkey"
            (await client.send_request(HttpRequest("POST", path, json=body, headers=headers))).raise_for_status()
            await stage.wait(7)


async def denied_purge(stage: Stage) -> None:
    """A contractor tries to purge a KEK for good, and may not."""
    async with stage.client("contractor", INTERNAL) as client:
        try:
            await client.purge_deleted_key(KEKS["internal-kek"][1])
        except HttpResponseError:
            return


async def list_keys(stage: Stage) -> None:
    """The inventory job lists and reads keys: reads, not uses."""
    async with stage.client("inventory", PROD) as client:
        async for properties in client.list_properties_of_keys():
            await client.get_key(str(properties.name))


async def look_at_key(stage: Stage) -> None:
    """An engineer opens the portal and looks at versions."""
    async with stage.client("platform", PROD) as client:
        async for _ in client.list_properties_of_key_versions(KEKS["tenant-kek"][1]):
            pass
