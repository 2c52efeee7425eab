"""Destruction, step by step: requested by two people, cooled off, zeroed, removed; or restored before.

Each step is one transaction and may be done again after a crash. What is written about a destruction besides key
records is a signed request; its approvals are verified again before anything is overwritten.
"""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, insert, select

from cryptocore.audit import Refusal, Subject, no_arrow, not_believed
from cryptocore.cache import key_ref
from cryptocore.care.statements import Statements
from cryptocore.clock import rfc3339_ms
from cryptocore.envelope import KEY_ID_SIZE
from cryptocore.events import KeyRef, Operation, Outcome
from cryptocore.keys import KeyAct, KeyReason, KeyState, permits
from cryptocore.life import approval_desk, destruction, destruction_marks, rotations
from cryptocore.life.approval_pairs import Verified, by_key, two_people
from cryptocore.life.approvals import Action, ApprovalInvalid, SignedApproval
from cryptocore.life.destruction import (
    DAY_MS,
    MOST_DAYS,
    REQUEST,
    Carried,
    Destruction,
    DestructionInvalid,
    Disbelieved,
    Item,
    Request,
)
from cryptocore.life.lifecycle import LIVE
from cryptocore.lines.texts import PERSON
from cryptocore.parts import Parts
from cryptocore.store.key_store import Change, KeyVersion, database_ms, outbox_row
from cryptocore.store.rotation_tables import DESTRUCTION


class Destroying:
    """The steps. `core_destruction.py` says what callers owe."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._called_off = Statements(destruction_marks.KIND, parts.registry, parts.signer)

    async def request(
        self, approvals: Sequence[SignedApproval], subject: Subject, *, cooling_off_days: int, note: str | None
    ) -> Destruction:
        """Take the request and start the cooling-off.

        1. Each named version is there, and its state leads to destroyed; rows are left under none of them.
        2. Two people approve each of them as its record is now; their nonces count.
        3. Request and events are written in the same transaction.

        Raises:
            Refusal: something of this does not hold.
        """
        parts = self._parts
        try:
            wanted = by_key(approvals)
        except ApprovalInvalid as err:
            raise approval_desk.not_approved(err) from None
        if not 1 <= len(wanted) <= destruction.MAX_ITEMS:
            raise no_arrow("nothing was approved, or too much at once")
        # 1
        versions = [await self._destroyable(*name) for name in wanted]
        ident = parts.ids(KEY_ID_SIZE)

        def write(connection: Connection) -> None:
            # 2
            for version in versions:
                pair = wanted[version.key_id, version.number]
                approval_desk.use(connection, pair, parts.registry, _names(version), key=key_ref(version))
            # 3
            now_ms = database_ms(connection)
            request = Request(
                id=ident.hex(),
                deployment=parts.deployment.hex(),
                service=parts.service,
                items=[_item(version) for version in versions],
                requested_at=rfc3339_ms(now_ms),
                due_at=rfc3339_ms(now_ms + cooling_off_days * DAY_MS),
                approvals=[Carried(**signed.to_json()) for signed in approvals],
            )
            raw, signature = destruction.sign(request, REQUEST, parts.signer)
            signed = {"request": raw, "signature": signature, "signer_id": parts.signer.signer_id}
            connection.execute(
                insert(DESTRUCTION).values(destruction_id=ident, due_ms=request.due_ms, **signed),
            )

        told = [self._told(version, Operation.DESTROY, subject, note) for version in _one_of_each_key(versions)]
        await parts.keyring.run(partial(parts.store.apply, (), beside=(write, *told)))
        return await self.find(ident)

    async def restore(self, ident: bytes, subject: Subject, *, note: str | None) -> Destruction:
        """Call a destruction off.

        Raises:
            Refusal: it has begun, or was called off before.
        """
        found = await self.find(ident)
        versions = [await self.version(item) for item in found.request.items]

        write = destruction_marks.calling_off(ident, self._called_off, key_ref(versions[0]))
        told = [self._told(version, Operation.RESUME, subject, note) for version in _one_of_each_key(versions)]
        await self._parts.keyring.run(partial(self._parts.store.apply, (), beside=(write, *told)))
        return await self.find(ident)

    async def overwrite(self, ident: bytes, subject: Subject, *, reason: KeyReason) -> Destruction:
        """Zero the wrapped DEKs, then remove them; what an earlier attempt did is not done again.

        1. The request is believed, and so are its approvals; its cooling-off is over; nobody called it off.
        2. Zeros where the wrapped DEK was, in state destroyed. From here on there is no way back.
        3. The empty string where the zeros were: the tombstone. A rotation of the version is finished.

        Raises:
            Refusal: something of this does not hold.
        """
        parts = self._parts
        # 1
        found = await self.find(ident)
        self.check_approved(found.request)
        if await parts.keyring.run(parts.store.transaction, database_ms) < found.request.due_ms:
            raise no_arrow(f"its cooling-off ends at {found.request.due_at}")
        # 2
        versions = [await self.version(item) for item in found.request.items]
        for item, version in zip(found.request.items, versions, strict=True):
            if version.record.state is not KeyState.DESTROYED and _item(version) != item:
                raise no_arrow("the key was changed since its destruction was approved", key_ref(version))
        zeroed = [
            self._zeroed(version, subject, reason)
            for version in versions
            if version.record.state is not KeyState.DESTROYED
        ]
        if zeroed or found.begun_ms is None:
            await parts.lifecycle.apply(zeroed, [destruction_marks.beginning(ident, self._called_off)])
        # 3
        versions = [await self.version(item) for item in found.request.items]
        removed = [self._removed(version, subject) for version in versions if version.wrapped_dek]
        if removed or found.overwritten_ms is None:
            finished = [rotations.finishing(version.key_id, version.number) for version in versions]
            await parts.lifecycle.apply(removed, [*finished, destruction_marks.ending(ident)])
        return await self.find(ident)

    async def find(self, ident: bytes) -> Destruction:
        """Read a destruction whose request is believed.

        Raises:
            Refusal: there is none, or it is not to be believed.
        """
        query = select(DESTRUCTION).where(DESTRUCTION.c.destruction_id == ident)
        row = await self._parts.keyring.run(
            self._parts.store.transaction, lambda connection: connection.execute(query).mappings().first()
        )
        if row is None:
            raise no_arrow("there is no such destruction")
        return self._read(row)

    async def listed(self) -> tuple[list[Destruction], list[Disbelieved]]:
        """List those that are neither called off nor certified, those due first in front, and rows not believed."""
        query = select(DESTRUCTION).where(DESTRUCTION.c.restored_ms.is_(None) & DESTRUCTION.c.certificate.is_(None))
        rows = await self._parts.keyring.run(
            self._parts.store.transaction,
            lambda connection: connection.execute(query.order_by(DESTRUCTION.c.due_ms)).mappings().all(),
        )
        found: list[Destruction] = []
        disbelieved: list[Disbelieved] = []
        for row in rows:
            try:
                found.append(self._read(row))
            except Refusal as refusal:
                disbelieved.append(Disbelieved(row["destruction_id"].hex(), str(refusal)))
        return found, disbelieved

    def _read(self, row: RowMapping) -> Destruction:
        try:
            request = destruction.believed(
                row["request"],
                Request,
                REQUEST,
                self._parts.registry,
                signature=row["signature"],
                signer_id=row["signer_id"],
                at_ms=_claimed_ms(row["request"]),
            )
        except DestructionInvalid as err:
            raise not_believed(f"{err.field}: {err.problem}") from None
        if (request.id, request.deployment) != (row["destruction_id"].hex(), self._parts.deployment.hex()):
            raise not_believed("request: another destruction's")
        if not DAY_MS <= request.due_ms - request.requested_ms <= MOST_DAYS * DAY_MS:
            raise not_believed("request: its cooling-off is none")
        return Destruction(
            id=request.id,
            request=request,
            due_ms=request.due_ms,
            restored_ms=row["restored_ms"],
            begun_ms=row["begun_ms"],
            overwritten_ms=row["overwritten_ms"],
            certificate=row["certificate"],
        )

    def check_approved(self, request: Request) -> list[Verified]:
        """Verify the approvals of every item once more, at the time they were given.

        Raises:
            Refusal: they do not hold.
        """
        try:
            pairs = by_key(request.signed_approvals())
            verified = []
            for item in request.items:
                pair = pairs.get((bytes.fromhex(item.key_id), item.version), [])
                for one in two_people(pair, self._parts.registry, action=Action.DESTROY, at_ms=request.requested_ms):
                    _check_item(one.approval.revision, one.approval.subject_sha256.hex(), item)
                    verified.append(one)
        except ApprovalInvalid as err:
            raise approval_desk.not_approved(err) from None
        return verified

    async def _destroyable(self, key_id: bytes, number: int) -> KeyVersion:
        parts = self._parts
        version = await parts.keyring.run(parts.store.version, key_id, number)
        if version is None:
            raise no_arrow(f"there is no key {key_id.hex()} version {number}")
        if not permits(version.record.state, version.newest, KeyAct.DESTROY):
            raise no_arrow(f"a key version that is {version.record.state} cannot destroy", key_ref(version))
        rotation = rotations.rows(rotations.of_version(key_id, number))
        for row in await parts.keyring.run(parts.store.transaction, rotation):
            next_one = await parts.keyring.run(parts.store.version, row["next_key_id"], row["next_version"])
            lives = next_one is not None and next_one.record.state in LIVE
            if row["rows_left"] != 0 and lives:  # without a version that lives there is nowhere for the rows to go
                raise no_arrow("rows are left under the version, or nobody reported that none are", key_ref(version))
        return version

    async def version(self, item: Item) -> KeyVersion:
        """Read the version that an item names, as it is now.

        Raises:
            Refusal: the store does not answer, or is not to be believed.
        """
        parts = self._parts
        version = await parts.keyring.run(parts.store.version, bytes.fromhex(item.key_id), item.version)
        if version is None:
            raise not_believed("version: its row is gone")
        return version

    def _zeroed(self, version: KeyVersion, subject: Subject, reason: KeyReason) -> Change:
        after = {"state": KeyState.DESTROYED, "reason": reason}
        zeros = bytes(len(version.wrapped_dek))
        return self._parts.lifecycle.revisions.change(version, after, Operation.DESTROY, subject, wrapped_dek=zeros)

    def _removed(self, version: KeyVersion, subject: Subject) -> Change:
        return self._parts.lifecycle.revisions.change(version, {}, Operation.DESTROY, subject, wrapped_dek=b"")

    def _told(self, version: KeyVersion, operation: Operation, subject: Subject, note: str | None) -> Any:
        """Tell of a step that is no revision: the event names the key and no version."""
        about = Subject(
            subject.actor, subject.purpose, version.owner.ref(), KeyRef(id=version.key_id.hex(), kind="dek")
        )
        said = note if subject.actor.startswith(PERSON) else None
        event = self._parts.audit.event(operation, about, outcome=Outcome.SUCCEEDED, note=said)
        return outbox_row(event, self._parts.signer)


def _names(version: KeyVersion) -> approval_desk.Names:
    digest = sha256(version.signed.record).digest()
    return Action.DESTROY, version.key_id, version.number, version.record.revision, digest


def _item(version: KeyVersion) -> Item:
    return Item(
        key_id=version.key_id.hex(),
        version=version.number,
        revision=version.record.revision,
        record_sha256=sha256(version.signed.record).hexdigest(),
    )


def _check_item(revision: int, subject_sha256: str, item: Item) -> None:
    if (revision, subject_sha256) != (item.revision, item.record_sha256):
        raise ApprovalInvalid("subject_sha256", "not what was asked for")


def _one_of_each_key(versions: Sequence[KeyVersion]) -> list[KeyVersion]:
    return list({version.key_id: version for version in versions}.values())


def _claimed_ms(request: bytes) -> int:
    try:
        return msgspec.json.decode(request, type=Request).requested_ms
    except (msgspec.MsgspecError, ValueError):
        return 0
