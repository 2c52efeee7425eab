"""What goes wrong in the simulated week, and the honest noise around it: an act is a coroutine and a line of story."""

import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest
from azure.keyvault.keys.aio import KeyClient

from cryptocore.envelope import Owner
from cryptocore.errors import Denied
from cryptocore.keys import KeyReason
from streams.demo.company import ADMIN, INTERNAL, KEKS, PROD
from streams.demo.fleet import Process, Rows
from streams.demo.simclock import MINUTE_US, WEEK_START_US
from streams.demo.world import Tape, World

STOLEN_UNWRAPS = 13
ROWS = 14
REVOKED_TRIES = 4
_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class Stage:
    """What an act may use: the world, the rows, the processes that run right now, and time, which they live through."""

    world: World
    tape: Tape
    rows: Rows
    processes: Sequence[Process]
    wait: Callable[[float], Awaitable[None]]

    def owner(self, service: str) -> Owner:
        """Return the owner that the story is about when it speaks of this service."""
        mine = self.world.company.of_service(service)
        return next(each.owner for each in mine if each.kek_alias == "tenant-kek")

    async def stock(self, process: Process, owner: Owner) -> list[tuple[str, bytes]]:
        """Return `ROWS` rows of an owner; what is missing is encrypted first."""
        for number in range(ROWS - len(self.rows.by_owner.get(owner, ()))):
            record = f"tokens/{number:04d}/refresh"
            ciphertext = await process.core.encrypt(
                b"a simulated token", owner=owner, record=record, actor=process.actor(), purpose="store-token"
            )
            self.rows.put(owner, record, ciphertext)
        return self.rows.by_owner[owner][:ROWS]

    def client(self, identity: str, host: str) -> KeyClient:
        return KeyClient(
            self.world.server.url(host),
            self.world.server.directory.credential(self.world.company.identities[identity]),
            transport=self.world.server.transport(),
            retry_total=0,
        )


@dataclass(frozen=True, slots=True)
class Act:
    """One act of the story, played in the first wave after `at_us`. `services` must be running then."""

    at_us: int
    title: str
    services: tuple[str, ...]
    play: Callable[[Stage], Awaitable[None]]


def _process(stage: Stage, service: str) -> Process:
    return next(each for each in stage.processes if each.service == service)


async def wrong_context(stage: Stage) -> None:
    """Billing looks for tokens in the wrong place: honest, but every one fails."""
    process = _process(stage, "billing")
    owner = stage.owner("billing")
    for record, ciphertext in await stage.stock(process, owner):
        try:
            await process.core.decrypt(
                ciphertext, owner=owner, record=f"{record}/old", actor="job:billing", purpose="nightly-sync"
            )
        except Denied:
            continue


async def revoke_key(stage: Stage) -> None:
    """A tenant reports a leaked backup: its key is revoked. From now on nobody may decrypt with it."""
    admin = _process(stage, ADMIN)
    owner = stage.owner("invoicing")
    await stage.stock(_process(stage, "invoicing"), owner)
    stage.world.revoked.add(owner)
    version = await admin.core.describe(owner)
    await admin.core.revoke(
        version.key_id, reason=KeyReason.COMPROMISE_SUSPECTED, actor="user:1009", purpose="incident"
    )


async def use_revoked(stage: Stage) -> None:
    """Invoicing was not told, and tries all the same."""
    process = _process(stage, "invoicing")
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


async def rotate_token(stage: Stage) -> None:
    """A tenant regenerates its token: its DEK is rotated, as policy asks."""
    admin = _process(stage, ADMIN)
    await admin.core.rotate(
        stage.owner("crm-sync"), reason=KeyReason.TOKEN_REGENERATED, actor="user:1117", purpose="user-request"
    )


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


def _at(day: int, hour: int, minute: int = 0) -> int:
    return WEEK_START_US + (day * _DAY + hour * 60 + minute) * MINUTE_US


STORY = (
    Act(_at(0, 1), "billing's nightly job looks for tokens in the wrong place", ("billing",), wrong_context),
    Act(_at(0, 9), "the inventory job lists keys", (), list_keys),
    Act(_at(1, 10), "a tenant regenerates its token; its DEK is rotated", (ADMIN,), rotate_token),
    Act(_at(1, 14), "an engineer looks at key versions in the portal", (), look_at_key),
    Act(_at(2, 9), "a tenant's key is revoked: compromise suspected", (ADMIN, "invoicing"), revoke_key),
    Act(_at(2, 12), "invoicing still tries to decrypt with the revoked key", ("invoicing",), use_revoked),
    Act(_at(3, 2, 30), "somebody with ci-deploy's identity unwraps keys straight at the vault", (), stolen_identity),
    Act(_at(4, 9), "the inventory job lists keys", (), list_keys),
    Act(_at(4, 21), "a contractor tries to purge a KEK", (), denied_purge),
)
