"""The six steps and the topics they read: the same pipeline for the workers, the demo and replay."""

from collections.abc import Callable, Mapping

from alerts.thresholds import Limits
from cryptocore.registry import Registry, Role
from streams.alerting.triage import TriageStep
from streams.conduct.who import WhoStep
from streams.feeds.vaults import VaultDeclarations
from streams.joining.allowed import Allowed
from streams.joining.join import JoinStep
from streams.messages import CORRELATE, FINDINGS, KEY_EVENTS, SOURCES, VAULT_ACCESS, WHO, Step
from streams.presence.sources import SourcesStep
from streams.trail.keys import KeysStep
from streams.vaultlogs.vault import VaultStep

StepFactory = Callable[[int], Step]


def steps(
    registry: Registry,
    limits: Limits,
    *,
    generation: int = 1,
    evaluate: bool = True,
    joined_ms: tuple[int, int] | None = None,
    declared: VaultDeclarations | None = None,
    allowed: Allowed | None = None,
) -> Mapping[str, StepFactory]:
    """Return, by input topic, what makes the step of one partition.

    Args:
        generation: of the topic key-events; batches of another one are rejected.
        evaluate: False where there are no application events: KEK uses are listed, not judged.
        joined_ms: only KEK uses in this half-open range of time are judged; None = all.
        declared: the vaults and KEKs that there are; None = nobody judges which vaults are silent.
        allowed: principals of no source that may use a KEK all the same; None = nobody.
    """
    return {
        KEY_EVENTS: lambda partition: KeysStep(
            registry=registry, limits=limits, generation=generation, partition=partition
        ),
        VAULT_ACCESS: lambda _: VaultStep(limits=limits, declared=declared),
        CORRELATE: lambda partition: JoinStep(
            registry=registry,
            limits=limits,
            evaluate=evaluate,
            joined_ms=joined_ms,
            allowed=allowed,
            declared=declared,
            partition=partition,
        ),
        WHO: lambda _: WhoStep(limits=limits, joined=evaluate, administrators=_administrators(registry)),
        SOURCES: lambda _: SourcesStep(registry=registry, limits=limits, declared=declared),
        FINDINGS: lambda _: TriageStep(limits=limits),
    }


def _administrators(registry: Registry) -> frozenset[str]:
    """Name the identities of the services that may change keys."""
    signers = (signer for signer in registry.signers if Role.KEYS in signer.roles)
    return frozenset(principal.lower() for signer in signers for principal in signer.vault_principals)
