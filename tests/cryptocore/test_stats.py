"""`core.stats()`: what happened is counted once, what waits is shown, and nothing secret is in it."""

import json
import threading
from pathlib import Path

import pytest

from cryptocore import (
    AuditUnavailable,
    CacheLimits,
    CryptoCore,
    KeyReason,
    KeyUnavailable,
    Owner,
    Signer,
    acting,
    testing,
)
from cryptocore.events import Outcome, Reason
from cryptocore.stats import CoreStats, RevocationWindow
from cryptocore.throttle import VaultBudget
from cryptocore.wrapping import LocalKeyWrapper, Unwrapped, VaultCallFailed
from tests.cryptocore.services import OWNER, local_core


class Away(LocalKeyWrapper):
    """A vault that answers every unwrap in one way."""

    def __init__(self, inner: LocalKeyWrapper, reason: Reason) -> None:
        super().__init__(inner.kek_alias, clock=inner._clock)
        self._reason = reason

    async def unwrap(self, wrapped_dek: bytes, *, version: str, call_ids: tuple[str, ...]) -> Unwrapped:
        raise VaultCallFailed(self._reason, (), retryable=True)


def test_a_core_that_was_never_used_shows_zeros_and_opens_nothing(tmp_path: Path) -> None:
    core = local_core(tmp_path, Signer.generate())
    stats = core.stats()

    assert (stats.open, stats.events_committed, stats.spool_bytes, stats.oldest_unsent_age_ms) == (False, 0, 0, None)
    assert stats.revocation_window is None
    assert not (tmp_path / "spool").exists()


async def test_uses_hits_misses_and_calls_of_the_vault_are_counted_once_each() -> None:
    async with testing.core() as core:
        with acting(actor="user:4711", purpose="p"):
            stored = await core.encrypt(b"x", owner=OWNER, record="r", create_missing=True)
            before = core.stats()
            for _ in range(4):
                await core.decrypt(stored, owner=OWNER, record="r")
            core.clock.advance(301)  # past dek_max_age
            await core.decrypt(stored, owner=OWNER, record="r")
        after = core.stats()

    assert after.cache_hits - before.cache_hits == 4
    assert after.cache_misses - before.cache_misses == 1
    assert after.vault_unwraps - before.vault_unwraps == 1
    assert (after.vault_wraps, after.vault_failures, after.cache_entries) == (1, 0, 1)
    assert after.events_committed == sum(tally.count for tally in after.committed)
    [decrypts] = [tally for tally in after.committed if tally.operation == "decrypt"]
    assert (decrypts.outcome, decrypts.count) == (Outcome.SUCCEEDED, 5)
    assert after.open
    assert core.stats().batches_sent == len(core.transport.batches)
    assert core.stats().lines_sent == sum(batch.value.count(b"\n") for _, batch in core.transport.batches)
    assert not core.stats().open


async def test_versions_that_had_to_make_room_are_counted() -> None:
    async with testing.core(limits=CacheLimits(dek_max_entries=2)) as core:
        with acting(actor="user:4711", purpose="p"):
            for number in range(5):
                await core.encrypt(b"x", owner=Owner.tenant(f"t-{number}", "crm"), record="r", create_missing=True)

        assert (core.stats().cache_entries, core.stats().cache_evictions) == (2, 3)


async def test_an_outage_shows_as_failures_remembered_ones_and_uses_in_grace() -> None:
    async with testing.core() as core:
        with acting(actor="user:4711", purpose="p"):
            stored = await core.encrypt(b"x", owner=OWNER, record="r", create_missing=True)
            await core.decrypt(stored, owner=OWNER, record="r")
            core.parts.keyring._wrappers = {testing.ALIAS: Away(core.wrapper, Reason.VAULT_THROTTLED)}
            core.clock.advance(301)
            for _ in range(3):
                await core.decrypt(stored, owner=OWNER, record="r")
            stats = core.stats()

        assert (stats.outage_grace_uses, stats.failures_remembered) == (3, 2)
        assert (stats.vault_failures, stats.vault_throttled) == (1, 1)


async def test_a_call_that_the_budget_does_not_allow_is_no_failure_of_the_vault() -> None:
    async with testing.core() as core:
        with acting(actor="user:4711", purpose="p"):
            stored = await core.encrypt(b"x", owner=OWNER, record="r", create_missing=True)
            core.clock.advance(3_000)  # past any age
            core.parts.calls._budget = VaultBudget(rate_per_s=0.001, burst=3, reserve=2, clock=core.clock)
            assert await core.parts.calls._budget.take(core.wrapper.vault, control=False)
            with pytest.raises(KeyUnavailable):
                await core.decrypt(stored, owner=OWNER, record="r")

        assert (core.stats().vault_over_budget, core.stats().vault_failures) == (1, 0)


async def test_what_waits_for_a_log_that_is_down_has_bytes_and_an_age_and_who_was_refused_is_counted() -> None:
    async with testing.core() as core:
        with acting(actor="user:4711", purpose="p"):
            await core.encrypt(b"x", owner=OWNER, record="r", create_missing=True)
            assert core.stats().oldest_unsent_age_ms is None
            core.transport.down = True
            with pytest.raises(AuditUnavailable):
                await core.encrypt(b"x", owner=OWNER, record="r")
        core.clock.advance(7)
        stats = core.stats()
        core.transport.down = False

    assert stats.spool_bytes > 0
    assert stats.oldest_unsent_age_ms is not None
    assert 7_000 <= stats.oldest_unsent_age_ms < 8_000
    assert stats.audit_failures == 1
    assert core.stats().spool_bytes == 0


async def test_the_revocation_window_is_the_measured_one() -> None:
    async with testing.core() as core:
        with acting(actor="user:4711", purpose="p"):
            for number in range(3):
                owner = Owner.tenant(f"t-{number}", "crm")
                await core.encrypt(b"x", owner=owner, record="r", create_missing=True)
                key = await core.describe(owner)
                await core.revoke(key.key_id, reason=KeyReason.COMPROMISE_SUSPECTED)
        windows = [revocation.after_ms for revocation in core.revocations()]
        found = core.stats().revocation_window

    assert found == RevocationWindow(len(windows), windows[-1], sorted(windows)[(len(windows) - 1) // 2], max(windows))


def test_stats_are_given_on_any_thread_while_the_core_works_and_as_json_without_secrets(tmp_path: Path) -> None:
    core: CryptoCore = local_core(tmp_path, Signer.generate())
    seen: list[CoreStats] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(core.stats())

    watcher = threading.Thread(target=look)
    watcher.start()
    with acting(actor="user:4711", purpose="store-token"):
        for _ in range(100):
            core.sync.encrypt(b"planted-plaintext", owner=OWNER, record="planted/record", create_missing=True)
    done.set()
    watcher.join()
    stats = core.sync.stats()
    core.sync.close()

    counts = [one.events_committed for one in seen]
    assert counts == sorted(counts)
    assert stats.events_committed >= 100
    assert json.loads(stats.as_json()) == stats.as_dict()
    for secret in ("planted", "user:4711", "t-88"):
        assert secret not in stats.as_json().decode()


async def test_on_a_running_loop_the_blocking_face_gives_them_too() -> None:
    async with testing.core() as core:
        assert core.sync.stats() == core.stats()
