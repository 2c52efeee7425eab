"""One invented week with a little of everything: what the golden structure and the screenshots are made from."""

from alerts.model import KekUseStatus
from cryptocore.events import Operation, Outcome, Reason
from cryptocore.keys import KeyState
from streams.index.port import Document
from tests.reports.scenario import Trail, alert, at, kek_documents, key, use


def story() -> list[Document]:
    """Three services; a revoked key, a stolen identity, a burst of failures, a process that died."""
    billing, sync, crashed = Trail("billing", 1), Trail("sync-worker", 2), Trail("exports", 3)
    for trail in (billing, sync, crashed):
        trail.opened(at(-1 if trail is billing else 0, 60))
    billing.decrypt(at(-1, 3_600), key=key(1))
    billing.heartbeat(at(-0.01))
    for number in range(1, 6):
        owned = key(number, revision=1, state=KeyState.PRE_ACTIVATION)
        billing.event(Operation.CREATE, Outcome.SUCCEEDED, at(0.1, number), key=owned)
        billing.event(Operation.ACTIVATE, Outcome.SUCCEEDED, at(0.1, number + 60), key=key(number, revision=2))
    for day in range(7):
        for number in range(40):
            billing.decrypt(at(day + 0.3, number * 60), key=key(1 + number % 3))
            sync.decrypt(at(day + 0.5, number * 60), key=key(1 + number % 4), actor="job:nightly")
        sync.heartbeat(at(day + 0.9))
    rotated = key(2, version=2, revision=1)
    billing.event(Operation.ROTATE, Outcome.SUCCEEDED, at(2), key=rotated, reason=Reason.SCHEDULED)
    billing.event(Operation.SUSPEND, Outcome.SUCCEEDED, at(3), key=key(4, revision=3, state=KeyState.SUSPENDED))
    revoked = key(5, revision=3, state=KeyState.REVOKED)
    billing.event(
        Operation.REVOKE, Outcome.SUCCEEDED, at(1.5), key=revoked, reason=Reason.COMPROMISE_SUSPECTED, actor="user:17"
    )
    sync.decrypt(at(1.5, 1.8), key=key(5))
    for number in range(4):
        sync.decrypt(at(4, number), Outcome.DENIED, key=revoked)
    for number in range(17):
        sync.decrypt(at(3.2, number * 10), Outcome.FAILED, key=key(3), actor="job:import")
    crashed.decrypt(at(5.5), key=key(3))
    crashed.heartbeat(at(5.6))
    sync.closed(at(6.9))
    billing.heartbeat(at(6.9999))
    return [*billing.documents, *sync.documents, *crashed.documents, *_vault(), *_alerts()]


def _vault() -> list[Document]:
    stolen = [
        use(
            number,
            at(3, 9_660 + number * 13),
            KekUseStatus.UNACCOUNTED,
            reason="foreign_principal" if number < 13 else "id_reused",
            principal_id="8c1f0a9e-5b1d-4c7e-9a55-3f0f6f2900e2",
            principal_label="ci-deploy",
            address="203.0.113.7",
        )
        for number in range(14)
    ]
    ours = [use(100 + number, at(number / 8)) for number in range(56)]
    unlogged = [use(900, at(5, 100), KekUseStatus.UNLOGGED, reason="no_vault_record", event_id="e")]
    return kek_documents([*stolen, *ours, *unlogged])


def _alerts() -> list[Document]:
    return [
        alert(
            42,
            "unaccounted_kek_access",
            first_at=at(3, 9_660),
            last_at=at(3, 9_829),
            opened_at=at(3, 10_351),
            summary="14 unwraps on kv-prod/tenant-kek that no application event explains",
            who="ci-deploy (workload 8c1f0a9e…00e2), 203.0.113.7",
            delivered=[{"channel": "webhook", "kind": "opened", "at": at(3, 10_353)}],
        ),
        alert(
            43,
            "crypto_failures",
            title="Many failed cryptographic operations",
            severity="high",
            status="acknowledged",
            count=17,
            first_at=at(3.2),
            last_at=at(3.2, 160),
            opened_at=at(3.2, 95),
            tenant="t-88",
            summary="10 failed decrypts with one key within 10 min, reason bad_tag",
            who="job:import through sync-worker",
            first_step="find the release that writes or reads these ciphertexts; compare the record names",
            runbook="docs/runbooks/crypto_failures.md",
            delivered=[{"channel": "webhook", "kind": "opened", "at": at(3.2, 109)}],
        ),
        alert(
            44,
            "revoked_key_decrypt",
            title="Decrypt with a revoked key",
            severity="critical",
            status="resolved",
            count=5,
            first_at=at(1.5, 1.8),
            last_at=at(4, 3),
            opened_at=at(1.5, 2),
            summary="decrypt with key 05050505…0505 version 1, 1.8 s after its revocation",
            who="user:4711 through sync-worker",
            delivered=[],
        ),
        alert(
            45,
            "chain_unclosed",
            title="A process ended without closing its audit trail",
            severity="low",
            count=1,
            first_at=at(5.6, 90),
            last_at=at(5.6, 90),
            opened_at=at(5.6, 90),
            summary="exports, process 03030303…0303: last heard 90 s ago",
            who="",
            first_step="let a live process of the service adopt the spool, or run the drain on its disk",
            runbook="docs/runbooks/chain_unclosed.md",
            evidence=[],
            delivered=[],
        ),
    ]
