"""Every number that a rule or a step judges by: its name, its unit, where it comes from.

Units are in the names: `_ms` milliseconds, `_days` days, otherwise a count or a factor. An operator who changes one
changes it here, through the constructor, for all rules and steps alike.
"""

from dataclasses import dataclass

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of the monitor, with the values that the formats and the design fix."""

    # crypto_failures. Policy 9.5d asks for failed operations without a number; ten in ten minutes is a caller that
    # loops or guesses, and stays silent on the odd bad ciphertext.
    failures: int = 10
    failures_window_ms: int = 10 * MINUTE_MS

    # Earlier uses kept with each key, so that a late revoke can look back (docs/formats.md, "Time").
    recent_uses: int = 32
    # Failed or denied uses kept apart, per key and per service without a key; twice what the rule counts.
    recent_failures: int = 20
    # How long a process may still serve from its cache after a revoke (docs/formats.md, "Key records").
    state_max_age_ms: int = 60 * SECOND_MS

    # When `occurred_at` is believed (docs/formats.md, "Time"): this long before and after `sealed_at`, and how far
    # `sealed_at` may be ahead of the broker.
    occurred_before_sealed_ms: int = 5 * MINUTE_MS
    occurred_after_sealed_ms: int = 1 * SECOND_MS
    sealed_after_append_ms: int = 2 * MINUTE_MS

    # The join (docs/formats.md, "Vault attempts and the join"): clocks of service and vault differ by up to the slack;
    # a call whose outcome is not known started within the reach of its intent.
    join_slack_ms: int = 2 * MINUTE_MS
    intent_reach_ms: int = 5 * MINUTE_MS
    # A vault record without its event: first word, last word.
    provisional_ms: int = 2 * MINUTE_MS
    final_ms: int = 60 * MINUTE_MS
    # An event without its vault record: Azure delivers within 15 min nearly always; the second look decides.
    unlogged_first_look_ms: int = 15 * MINUTE_MS
    unlogged_ms: int = 60 * MINUTE_MS
    # How long claims and uses stay after they were judged, so that what comes late can still correct them.
    join_keep_ms: int = 75 * MINUTE_MS

    # Sealed batches and their chains (docs/formats.md, "Sealed batch").
    open_gaps: int = 1_024
    chain_window: int = 64
    gap_lost_ms: int = 60 * MINUTE_MS
    head_received_ms: int = 5 * MINUTE_MS
    heartbeat_ms: int = 30 * SECOND_MS
    silent_heartbeats: int = 3

    # Vault records: the same one may come again through another diagnostic setting; the topic's consumers may lag.
    access_seen_ms: int = 26 * HOUR_MS

    # Findings: repeats of one fingerprint, and when its alert closes by itself (a week: one report period).
    repeat_ms: int = 1 * MINUTE_MS
    quiet_ms: int = 7 * DAY_MS
    # Triage: a growing alert notifies again when its count has grown by this factor and not before this long.
    worse_factor: int = 4
    worse_after_ms: int = 15 * MINUTE_MS
    # Documents that an alert cites at most; the rest is in the index.
    evidence: int = 20

    # What cannot be read: above this many rejected messages a minute on one partition it is an attack or a broken
    # producer, and the agent stops and says so.
    rejected_per_minute: int = 100
    # The index is called unavailable after this long without an answer (design: detection does not wait for it).
    index_silent_ms: int = 30 * SECOND_MS
    # Days for which an index by day is opened, around the broker's time; the rest goes to one index of its own.
    past_days: int = 35
    future_days: int = 1


DEFAULT_LIMITS = Limits()
