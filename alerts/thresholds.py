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

    # decoy_key_use: keys that no service may ever use, by id in hex; KEYTRAIL_DECOY_KEYS names them, and nothing else.
    decoy_keys: frozenset[str] = frozenset()

    # Earlier uses kept with each key, so that a late revoke can look back (docs/formats.md, "Time").
    recent_uses: int = 32
    # Failed or denied uses kept apart, per key and per service without a key; twice what the rule counts.
    recent_failures: int = 20
    # How long a process may still serve from its cache after a revoke (docs/formats.md, "Key records").
    state_max_age_ms: int = 60 * SECOND_MS

    # rotation_unfinished: how long the old version of a rotated key may take to its destruction; as the key store's own
    # dates (cryptocore.life.rotations).
    rotation_ms: int = 30 * DAY_MS
    rotation_after_compromise_ms: int = 7 * DAY_MS

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
    # How many of a vault's answered calls its log must show, per hour and after the first look, and for how long fewer
    # are borne; what Azure's delivery loses at its worst (docs/vault-feeds.md, "What was seen").
    match_ratio: float = 0.98
    match_loss: float = 0.01
    match_low_ms: int = 30 * MINUTE_MS
    # How long claims and uses stay after they were judged, so that what comes late can still correct them.
    join_keep_ms: int = 75 * MINUTE_MS
    # Vault records, and claims, of one KEK that are kept at once: 12 uses a second for as long as they are kept. A
    # service that caches its DEKs needs far fewer.
    join_kept: int = 100_000

    # After a KEK was disabled, changed or deleted, its services may go on for as long as they may serve from a cache,
    # and two clocks may differ; what goes on after that does not know of it (kek_drift).
    kek_settled_ms: int = 5 * MINUTE_MS
    # KEKs of one partition whose state is followed; a fleet has dozens, and names beyond are somebody's invention.
    keks: int = 4_096

    # Sealed batches and their chains (docs/formats.md, "Sealed batch").
    open_gaps: int = 1_024
    chain_window: int = 64
    gap_lost_ms: int = 60 * MINUTE_MS
    head_received_ms: int = 5 * MINUTE_MS
    heartbeat_ms: int = 30 * SECOND_MS
    silent_heartbeats: int = 3

    # Vault records: the same one may come again through another diagnostic setting; the topic's consumers may lag.
    access_seen_ms: int = 26 * HOUR_MS

    # Baselines of principals (docs/detection.md). Azure delivers within 15 min nearly always: a window is judged after
    # that, and a minute for our own way through the topics; what comes later is judged on its own.
    bin_ms: int = 5 * MINUTE_MS
    lateness_ms: int = 15 * MINUTE_MS
    lateness_grace_ms: int = 1 * MINUTE_MS
    # What a vault, a principal, and a principal's class of operations in a vault must have shown before the first
    # sight of something means anything: this long, and this many events.
    learn_ms: int = 7 * DAY_MS
    learn_events: int = 50
    # What was not seen for this long is new again; policy and people change within a quarter.
    baseline_keep_ms: int = 30 * DAY_MS
    # A principal that met new objects on so many of the last 30 days does so as a habit (a new secret per customer).
    habitual_days: int = 3
    # Volume and fan-out against their own past: silent below the floor, and before so many active windows. On a real
    # 3.6-year series this fired twice where z-scores fired 50 times.
    volume_floor: int = 20
    fan_out_floor: int = 10
    usual_factor: int = 2
    active_windows: int = 30
    # Refusals and missing names within two bins, the only baseline rules that learn nothing.
    denied: int = 5
    denied_keys: int = 3
    names_guessed: int = 10
    # Sign-in challenges of one address that no token follows, within a day. An SDK leaves one an hour.
    lone_challenges: int = 1_000
    lone_challenges_keep_ms: int = 1 * DAY_MS
    # Signs of one principal in one vault are one incident until none was seen for this long.
    incident_quiet_ms: int = 1 * HOUR_MS
    # What is kept per principal at most, and per bin; the rest is counted, no alert.
    baseline_pairs: int = 512
    baseline_networks: int = 64
    bin_pairs: int = 512
    bin_refusals: int = 64
    addresses: int = 10_000
    vaults: int = 1_024

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
