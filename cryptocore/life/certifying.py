"""Certificates of destruction: issued once no instance uses what it remembers, from signed records and declarations."""

from collections.abc import Mapping, Sequence
from hashlib import sha256

from sqlalchemy import Connection, select, update

from cryptocore.audit import Refusal, no_arrow
from cryptocore.clock import rfc3339_ms
from cryptocore.errors import KeyUnavailable, RecordInvalid
from cryptocore.events import Outcome, Reason
from cryptocore.keks.ends import LEEWAY_MS, Ends, agreed
from cryptocore.keys import KeyState
from cryptocore.life import destruction
from cryptocore.life.copies import Copies
from cryptocore.life.destroying import Destroying
from cryptocore.life.destruction import Certificate, Destruction, Item
from cryptocore.parts import Parts
from cryptocore.records import KeyRecord, SignedRecord, check_successor, verify_record
from cryptocore.store.key_store import KeyVersion, database_ms
from cryptocore.store.rotation_tables import DESTRUCTION
from cryptocore.store.tables import KEY_HISTORY

Kek = tuple[str, str]


class Certifying:
    """Issues certificates."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._destroying = Destroying(parts)

    async def certify(self, ident: bytes, copies: Copies, purged: Mapping[Kek, int]) -> Destruction:
        """Issue the certificate, once no instance can use what it remembers of the versions.

        Raises:
            Refusal: nothing is overwritten yet, or an instance may still remember.
            KeyUnavailable: an instance may still remember; later it will not.
        """
        parts = self._parts
        found = await self._destroying.find(ident)
        verified = self._destroying.check_approved(found.request)
        if found.overwritten_ms is None:
            raise no_arrow("nothing is overwritten yet")
        window_s = parts.cache.limits.state_max_age_s
        versions = [await self._destroying.version(item) for item in found.request.items]
        if not all(_is_tombstone(version) for version in versions):  # whatever the row of the destruction says
            raise no_arrow("not every wrapped DEK is overwritten and removed yet")
        changed_ms = max(version.record.changed_at_ms for version in versions)  # the row's own word is not signed
        overwritten_ms = max(found.overwritten_ms, changed_ms) + round(window_s * 1000)
        now_ms = await parts.keyring.run(parts.store.transaction, database_ms)
        if any(purged_ms > now_ms for purged_ms in purged.values()):
            raise no_arrow("a KEK version counts as purged once it is, not when that is planned")
        purged = agreed(purged, (await Ends(parts).all()).known)
        if now_ms < overwritten_ms:
            raise Refusal(
                Outcome.FAILED,
                Reason.KEY_STATE,
                KeyUnavailable,
                f"an instance may use what it remembers until {rfc3339_ms(overwritten_ms)}",
                retryable=True,
            )
        items, last_ms = [], [overwritten_ms]
        for item, version in zip(found.request.items, versions, strict=True):
            history = await self._history(version)
            _check_wraps(history, purged)
            keks = destruction.keks_of(history)
            known = {} if _is_imported(history) else purged  # no record says which KEK had wrapped it before
            gone_ms = destruction.unrecoverable_ms(overwritten_ms, copies, keks, known)
            last_ms.append(gone_ms)  # type: ignore[arg-type]
            items.append(_destroyed(item, version, keks, purged, gone_ms))
        certificate = Certificate(
            id=found.id,
            deployment=found.request.deployment,
            service=parts.service,
            issued_at=rfc3339_ms(now_ms),
            requested_at=found.request.requested_at,
            due_at=found.request.due_at,
            overwritten_at=rfc3339_ms(overwritten_ms),
            instances=f"none uses a state that it last checked more than {window_s:g} s ago",
            unrecoverable_after=destruction.shown_ms(None if None in last_ms else max(last_ms)),
            items=items,
            copies=destruction.declared(copies),
            approvals=destruction.carried_by(verified),
        )
        text = destruction.certificate_text(certificate, parts.signer)
        change = update(DESTRUCTION).where(DESTRUCTION.c.destruction_id == ident).values(certificate=text)
        await parts.keyring.run(parts.store.transaction, lambda connection: connection.execute(change) and None)
        return await self._destroying.find(ident)

    async def _history(self, version: KeyVersion) -> list[KeyRecord]:
        """Read every record of a version, each verified and held against the one before."""
        parts = self._parts
        where = (KEY_HISTORY.c.key_id == version.key_id) & (KEY_HISTORY.c.version == version.number)
        query = select(KEY_HISTORY.c.record, KEY_HISTORY.c.signature).where(where).order_by(KEY_HISTORY.c.revision)

        def read(connection: Connection) -> list[KeyRecord]:
            found: list[KeyRecord] = []
            before = b""
            for raw, signature in connection.execute(query):
                at_ms = KeyRecord.decode(raw).changed_at_ms
                record = verify_record(SignedRecord(raw, signature), parts.registry, at_ms=at_ms)
                if found:
                    check_successor(found[-1], before, record)
                found.append(record)
                before = raw
            if before != version.signed.record or found[0].revision != 1:
                raise RecordInvalid("revision", "the history has gaps, or is another one's")
            return found

        return await parts.keyring.run(parts.store.transaction, read)


def _is_imported(history: Sequence[KeyRecord]) -> bool:
    """Say whether the DEK came from other software: only its version is superseded from its beginning."""
    return history[0].superseded_by != 0


def _check_wraps(history: Sequence[KeyRecord], purged: Mapping[Kek, int]) -> None:
    """Refuse a purge before a DEK was wrapped under that KEK version."""
    first: dict[Kek, KeyRecord] = {}
    for record in history:
        first.setdefault((record.kek_alias, record.kek_version), record)
    for kek, record in first.items():
        if kek in purged and record.changed_at_ms > purged[kek] + LEEWAY_MS:
            raise no_arrow(
                f"{kek[0]}/{kek[1]} was not gone at {rfc3339_ms(purged[kek])}: "
                f"{record.key_id.hex()}/{record.key_version} was wrapped under it at {rfc3339_ms(record.changed_at_ms)}"
            )


def _is_tombstone(version: KeyVersion) -> bool:
    return version.record.state is KeyState.DESTROYED and not version.wrapped_dek


def _destroyed(
    item: Item, version: KeyVersion, keks: Sequence[Kek], purged: Mapping[Kek, int], gone_ms: int | None
) -> destruction.Destroyed:
    owner = version.owner.ref()
    parts = {name: getattr(owner, name) for name in ("tenant_id", "integration_id", "secret_name")}
    return destruction.Destroyed(
        key_id=item.key_id,
        version=item.version,
        owner={name: part for name, part in parts.items() if part is not None},
        approved_record_sha256=item.record_sha256,
        tombstone_revision=version.record.revision,
        tombstone_sha256=sha256(version.signed.record).hexdigest(),
        keks=[
            destruction.KekVersion(
                alias=kek[0], version=kek[1], purged_at=rfc3339_ms(purged[kek]) if kek in purged else None
            )
            for kek in keks
        ],
        unrecoverable_after=destruction.shown_ms(gone_ms),
    )
