"""`keytrail worker`: puts registry, steps, index and deliveries together for the process that runs them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from alerts.delivery import Notifier, WebhookNotifier
from alerts.delivery_apprise import AppriseNotifier
from alerts.thresholds import Limits
from cryptocore.clock import SystemClock
from cryptocore.registry import Registry
from streams.alerting.deliveries import Deliveries, LogNotifier
from streams.feeds.vaults import VaultDeclarations
from streams.index.elastic import ElasticIndex
from streams.joining.allowed import Allowed
from streams.pipeline import StepFactory, steps
from streams.running.app import WorkerApp
from streams.running.process import Application, work
from streams.settings import Settings
from streams.stderr import log_to_stderr


def run(
    settings: Settings, *, limits: Limits | None = None, application: Callable[..., Application] = WorkerApp
) -> None:
    """Run until SIGTERM or SIGINT; ends the process with 70 when it must not go on.

    Args:
        settings: of this deployment.
        limits: by which rules and steps judge; without them those of operation.
        application: what brings messages and assignments to the shell.

    Raises:
        RegistryInvalid, VaultsInvalid, AllowedInvalid: one of the reviewed files cannot be used.
        SystemExit: 2 when the topics are not as they must be.
    """
    log_to_stderr(settings.log_level)
    pipeline = pipeline_of(settings, limits)
    asyncio.run(_run(settings, pipeline, application))


def pipeline_of(settings: Settings, limits: Limits | None = None) -> Mapping[str, StepFactory]:
    """Make the steps over the reviewed files that the settings name.

    Raises:
        RegistryInvalid, VaultsInvalid, AllowedInvalid: one of them cannot be used.
    """
    registry = Registry.load(settings.sources_file)
    declared = None if settings.vaults_file is None else VaultDeclarations.load(settings.vaults_file)
    allowed = None if settings.allowed_file is None else Allowed.load(settings.allowed_file)
    if allowed is not None:
        allowed.check(registry)
    judged_by = replace(limits or Limits(), decoy_keys=frozenset(settings.decoy_keys))
    return steps(registry, judged_by, generation=settings.generation, declared=declared, allowed=allowed)


async def _run(
    settings: Settings, pipeline: Mapping[str, StepFactory], application: Callable[..., Application]
) -> None:
    deliveries = Deliveries(channels(settings), canary=canary_route(settings))
    await work(
        settings,
        pipeline,
        open_index(settings),
        deliver=deliveries.send,
        delivered=deliveries.counts,
        application=application,
    )


def channels(settings: Settings) -> dict[str, Notifier]:
    """Make the channels that the settings name; the log is always one."""
    made: dict[str, Notifier] = {"log": LogNotifier()}
    if settings.webhook_url is not None and settings.webhook_secret is not None:
        made["webhook"] = WebhookNotifier(
            str(settings.webhook_url), secret=settings.webhook_secret.get_secret_value().encode(), clock=SystemClock()
        )
    if settings.apprise_urls:
        made["apprise"] = AppriseNotifier([url.get_secret_value() for url in settings.apprise_urls])
    return made


def canary_route(settings: Settings) -> Notifier | None:
    """Make the way of the canary; one attempt, since the next canary comes in a minute."""
    if settings.canary_route is None or settings.canary_secret is None:
        return None
    secret = settings.canary_secret.get_secret_value().encode()
    return WebhookNotifier(str(settings.canary_route), secret=secret, clock=SystemClock(), attempts=1)


def open_index(settings: Settings) -> ElasticIndex:
    """Connect to Elasticsearch as the settings say; the first call decides whether it answers."""
    key = settings.elasticsearch_api_key
    return ElasticIndex.connect(
        [str(settings.elasticsearch_url)],
        prefix=settings.index_prefix,
        replicas=settings.index_replicas,
        api_key=None if key is None else key.get_secret_value(),
        ca_certs=settings.elasticsearch_ca_file,
    )
