"""Is each KEK use ours? Vault records meet the events of our services (docs/formats.md, "Vault attempts and the join").

1. A record by an identity of no registered source is unaccounted at once: no event of ours can explain it.
   Only an entry of allowed.toml can, which is then named.
2. A record that matches an attempt is explained; which one it matches is `matching`'s to say.
3. Any other record is unaccounted as soon as every live process of its source has passed its time, provisionally after
   two minutes (all that wait for one source are one finding, `waiting`), for good after an hour.
4. An answered attempt that no record shows an hour later is unlogged.
5. What comes later still corrects 2 to 4, while both sides are kept: a new revision of the document, and the hit of the
   finding is taken back.
6. So is an administrative act on a KEK, which its event makes information: `explained` or `unexplained`.
7. What was done to a KEK is held against what is done with it (`kek_watch`).

What is said of a record and of a claim is `use_judge`'s and `claim_judge`'s; here they come in and wait. A record
whose attempt was unlogged keeps its own document; that of the attempt then says not_evaluated, logged_late.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

import msgspec

from alerts.model import AccessClass
from alerts.thresholds import Limits
from cryptocore.registry import Registry
from streams import rejected
from streams.feeds.vaults import VaultDeclarations
from streams.index.documents import kek_use_document
from streams.index.port import Document
from streams.joining import claim_judge, correlate, judgement, use_judge
from streams.joining.allowed import Allowed
from streams.joining.attempts import USES, VAULT_OPERATION, access_of, attempts_of, prefer
from streams.joining.claim_judge import ClaimJudge
from streams.joining.correlate import Claim, Progress, Use, partition_key
from streams.joining.join_crowd import Crowd
from streams.joining.join_retention import Due, Retention
from streams.joining.joinstate import ClaimState, UseState
from streams.joining.kek_watch import KekWatch
from streams.joining.matching import Matching
from streams.joining.matchrate import Tallies
from streams.joining.progress import SourceProgress
from streams.joining.standing import StandingFindings
from streams.joining.use_judge import UseJudge
from streams.messages import CORRELATE, Effects, Message
from streams.state import Kind, State


class JoinStep:
    """The agent of one partition of `correlate`.

    Args:
        registry: which vault principals act for which source.
        limits: the times of the join.
        evaluate: False where there are no application events: every use is not_evaluated and no rule runs.
        joined_ms: only uses in this half-open range are judged, the rest is not_evaluated; None = all.
        allowed: principals of no source that may use a KEK all the same; None = nobody.
        declared: the KEKs that there are; None = nobody said.
        partition: which one this is.
    """

    topic = CORRELATE

    def __init__(
        self,
        *,
        registry: Registry,
        limits: Limits,
        evaluate: bool = True,
        joined_ms: tuple[int, int] | None = None,
        allowed: Allowed | None = None,
        declared: VaultDeclarations | None = None,
        partition: int = 0,
    ) -> None:
        self._registry = registry
        self._limits = limits
        self._evaluate = evaluate
        self._joined_ms = joined_ms
        self._allowed = allowed
        self._declared = declared
        self._partition = partition
        self._reset()

    def _reset(self) -> None:
        self._matching = Matching()
        self._due: list[Due] = []
        self._progress = SourceProgress(slack_ms=self._limits.join_slack_ms, keep_ms=self._limits.final_ms)
        self._findings = StandingFindings(self._partition)
        self._keks = KekWatch(
            findings=self._findings, limits=self._limits, declared=self._declared, compare=self._evaluate
        )
        self._crowd = Crowd(findings=self._findings, limits=self._limits)
        self._uses = UseJudge(
            matching=self._matching,
            progress=self._progress,
            findings=self._findings,
            keks=self._keks,
            crowd=self._crowd,
            limits=self._limits,
            allowed=self._allowed,
            joined_ms=self._joined_ms,
            evaluate=self._evaluate,
        )
        self._tallies = Tallies()
        self._claims = ClaimJudge(
            matching=self._matching,
            findings=self._findings,
            limits=self._limits,
            uses=self._uses,
            tallies=self._tallies,
        )
        self._retention = Retention(
            matching=self._matching, keks=self._keks, crowd=self._crowd, limits=self._limits, due=self._due
        )
        self._pruned_ms = 0

    # The step

    def restore(self, state: State) -> None:
        """Rebuild the matching and what is due from the records."""
        self._reset()
        self._progress.restore(state)
        self._findings.restore(state)
        self._tallies.restore(state)
        for ident in state.idents(Kind.CLAIM):
            claim = state.get(Kind.CLAIM, ident, ClaimState)
            if claim is not None:
                self._matching.put_claim(ident, attempts_of(ident, claim, self._limits))
                self._crowd.count("claim", partition_key(claim.claim.vault, claim.claim.name))
                self._due += self._retention.claim_dues(ident, claim)
        for ident in state.idents(Kind.USE):
            known = state.get(Kind.USE, ident, UseState)
            if known is not None:
                self._admit(ident, known)
                self._keks.restored(ident, known)
                self._crowd.count("use", partition_key(known.use.vault, known.use.name))
                self._due += self._retention.use_dues(ident, known)
        heapify(self._due)

    def apply(self, message: Message, now_ms: int, state: State, effects: Effects) -> None:
        """Take a claim, a use or a report of progress."""
        try:
            taken = correlate.decode(message.value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            rejected.reject(message, "message_invalid", "value", "no message of correlate", now_ms, effects)
            return
        waiting: Iterable[bytes] = ()
        if isinstance(taken, Use):
            self._take_use(taken, message.append_ms, now_ms, state, effects)
        elif isinstance(taken, Claim):
            self._take_claim(taken, message.append_ms, now_ms, state, effects)
        else:
            waiting = self._take_progress(taken, now_ms, state)
        self._judge_changed(waiting, now_ms, state, effects)

    def tick(self, now_ms: int, state: State, effects: Effects) -> None:
        """Judge what is due, and let go of what was judged long ago."""
        self._judge_changed(self._progress.prune(now_ms, state), now_ms, state, effects)
        while self._due and self._due[0][0] <= now_ms:
            _, kind, ident = heappop(self._due)
            if kind == Kind.USE:
                self._uses.judge(ident, now_ms, state, effects)
                self._retention.use(ident, now_ms, state)
            else:
                self._claims.judge(ident, now_ms, state, effects)
                self._retention.claim(ident, now_ms, state)
        self._keks.tick(now_ms, state, effects)
        self._tallies.tick(now_ms, state, effects)
        self._crowd.tick(now_ms, state, effects)
        self._findings.tick(now_ms, state, effects)
        if now_ms - self._pruned_ms >= self._limits.final_ms:
            self._pruned_ms = now_ms
            self._findings.prune(state)
            self._tallies.prune(now_ms, state)

    def reindex(self, message: Message, effects: Effects) -> None:
        """Nothing: all documents of this step belong to records."""

    def redocument(self, state: State, effects: Effects) -> None:
        """Write again what the index has not confirmed."""
        for ident in state.idents(Kind.USE):
            known = state.get(Kind.USE, ident, UseState)
            if known is not None and known.doc_indexed != known.revision:
                effects.document(kek_use_document(known.use, known.revision, use_judge.KEY + ident))
        for ident in state.idents(Kind.CLAIM):
            claim = state.get(Kind.CLAIM, ident, ClaimState)
            if claim is not None and claim.doc_indexed != claim.revision:
                effects.document(
                    kek_use_document(self._claims.unlogged(ident, claim), claim.revision, claim_judge.KEY + ident)
                )

    def indexed(self, document: Document, state: State) -> None:
        """Note that a document is in the index."""
        key = document.state_key or b""
        kind, ident = key[:1], key[1:]
        record: UseState | ClaimState | None = None
        if kind == use_judge.KEY:
            record = state.get(Kind.USE, ident, UseState)
        elif kind == claim_judge.KEY:
            record = state.get(Kind.CLAIM, ident, ClaimState)
        if record is not None and record.doc_indexed < document.version:
            record.doc_indexed = document.version
            state.put(Kind(kind[0]), ident, record)

    # What comes in

    def _take_use(self, use: Use, append_ms: int, now_ms: int, state: State, effects: Effects) -> None:
        if use.act is not None and use.act.access_class is AccessClass.NOTIFICATION:
            self._keks.take_news(use.act, now_ms, state, effects)
            return
        ident = _use_ident(use.access_id)
        if state.get(Kind.USE, ident, UseState) is not None:
            return
        source = None if use.principal_id is None else self._registry.source_of_principal(use.principal_id)
        known = UseState(use=judgement.pending(use, source), seen_ms=append_ms, act=use.act)
        key = partition_key(use.vault, use.name)
        if use.act is None and not self._crowd.admits("use", key):
            self._crowd.turned_away("use", key, use.time_us // 1000, now_ms, state, effects)
            self._uses.judge_untaken(known, now_ms, state, effects)
            return
        self._crowd.count("use", key)
        state.put(Kind.USE, ident, known)
        self._admit(ident, known)
        self._keks.take_record(ident, known, now_ms, state, effects)
        for due in self._retention.use_dues(ident, known):
            heappush(self._due, due)

    def _admit(self, ident: bytes, known: UseState) -> None:
        """Let the record take part in the matching, if anything could explain it; have it judged in any case."""
        source = known.use.source
        if known.settled:
            return
        if source is None or not self._uses.joined(known.use.time_us // 1000):
            self._matching.note(ident)
        else:
            self._matching.put_access(access_of(ident, known, source))
            if not known.use.final:
                self._progress.wait(source, known.use.time_us // 1000, ident)

    def _take_claim(self, claim: Claim, append_ms: int, now_ms: int, state: State, effects: Effects) -> None:
        if claim.suspect or not self._evaluate or claim.operation not in VAULT_OPERATION:
            return
        if claim.operation in USES:
            self._keks.take_claim(claim, now_ms, state, effects)
        ident = f"{claim.source}/{claim.intent_id or claim.event_id}".encode()  # nobody ends another's call
        known = state.get(Kind.CLAIM, ident, ClaimState)
        key = partition_key(claim.vault, claim.name)
        if known is None:
            if not self._crowd.admits("claim", key):
                self._crowd.turned_away("claim", key, claim.effective_ms, now_ms, state, effects)
                return
            known = ClaimState(claim=claim, seen_ms=append_ms)
            self._crowd.count("claim", key)
        elif prefer(claim, known.claim):
            known.claim, known.seen_ms = claim, append_ms
        elif claim.phase != "intent" or known.intent_ms is not None:
            return
        if claim.phase == "intent":
            known.call_ids, known.intent_ms = claim.call_ids, claim.effective_ms
        state.put(Kind.CLAIM, ident, known)
        self._progress.claimed(claim, now_ms, state)
        self._matching.put_claim(ident, attempts_of(ident, known, self._limits))
        for due in self._retention.claim_dues(ident, known):
            heappush(self._due, due)

    def _take_progress(self, progress: Progress, now_ms: int, state: State) -> list[bytes]:
        return self._progress.advance(progress, now_ms, state) if self._evaluate else []

    def _judge_changed(self, waiting: Iterable[bytes], now_ms: int, state: State, effects: Effects) -> None:
        uses, claims = self._matching.take_changed()
        for ident in dict.fromkeys((*uses, *waiting)):
            self._uses.judge(ident, now_ms, state, effects)
        for ident in claims:
            self._claims.judge(ident, now_ms, state, effects)


def _use_ident(access_id: str) -> bytes:
    try:
        return bytes.fromhex(access_id)
    except ValueError:
        return access_id.encode()
