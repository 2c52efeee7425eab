"""Who lives in the simulated company: services, tenants, identities and what each may touch. Data, no behaviour."""

import random
import uuid
from dataclasses import dataclass

from cryptocore.envelope import Owner
from streams.demo.identities import Identity

PROD, EU, INTERNAL = "kv-prod.vault.azure.net", "kv-eu.vault.azure.net", "kv-internal.vault.azure.net"
HOSTS = (PROD, EU, INTERNAL)
# Alias of the KEK → vault and key name: what a deployment pins in its configuration.
KEKS = {
    "tenant-kek": (PROD, "tenant-kek"),
    "tenant-kek-eu": (EU, "tenant-kek"),
    "internal-kek": (INTERNAL, "secrets-kek"),
}

ADMIN = "key-admin"
SERVICES = (
    ADMIN, "billing", "crm-sync", "mailer", "invoicing", "calendar-sync", "ledger", "payouts", "chat-bridge",
    "contacts", "document-store", "exports", "feed-reader", "forms", "fraud-check", "geo", "helpdesk", "identity-link",
    "imports", "inbox", "inventory-sync", "lead-scoring", "meetings", "metering", "notifier", "onboarding", "orders",
    "partner-api", "price-watch", "quotes", "reconcile", "reminders", "reporting", "scheduler", "search-sync",
    "shipping", "sms-gateway", "subscriptions", "tax", "webhooks",
)  # fmt: skip
TENANTS = tuple(f"t-{number:02d}" for number in range(1, 13))
INTEGRATIONS = ("crm", "mail", "erp", "chat")
SECRETS = ("stripe-webhook", "smtp-relay", "oauth-client", "sms-provider")
EU_TENANTS = frozenset(TENANTS[8:])
LEAVING = TENANTS[-1]
KEEPERS = (ADMIN, "crm-sync", "invoicing", "mailer")  # they keep keys or tokens, and sign what they do to them
LENA, TOM = "Lena", "Tom"  # who approves what cannot be undone
TEAMS = {"crm": "sales-platform", "mail": "messaging", "erp": "finance", "chat": "messaging"}

_SERVICE_PERMISSIONS = frozenset({"get", "wrapKey", "unwrapKey", "secrets/get"})
_ADMIN_PERMISSIONS = frozenset({"list", "rotate"})


@dataclass(frozen=True, slots=True)
class Owned:
    """An owner and the alias of the KEK that wraps its DEK."""

    owner: Owner
    kek_alias: str


@dataclass(frozen=True, slots=True)
class Company:
    """Everybody, drawn from one seed."""

    identities: dict[str, Identity]
    owned: tuple[Owned, ...]

    def of_service(self, name: str) -> tuple[Owned, ...]:
        """Return the owners whose data a service handles: one integration of every tenant, or internal secrets."""
        place = SERVICES.index(name)
        if place % 10 == 9:  # noqa: PLR2004 - every tenth service looks after internal secrets
            return tuple(each for each in self.owned if each.kek_alias == "internal-kek")
        integration = INTEGRATIONS[place % len(INTEGRATIONS)]
        return tuple(each for each in self.owned if each.owner.ref().integration_id == integration)


def found(seed: int) -> Company:
    """Draw the company: 40 services, 12 tenants, and the people and machines around them."""
    draw = random.Random(seed)
    identities = {
        name: _workload(draw, name, _SERVICE_PERMISSIONS | (_ADMIN_PERMISSIONS if name == ADMIN else frozenset()))
        for name in SERVICES
    }
    identities["ci-deploy"] = _workload(draw, "ci-deploy", frozenset({"get", "list", "unwrapKey"}), "203.0.113.7")
    identities["inventory"] = _workload(draw, "inventory", frozenset({"get", "list"}), "10.40.1.9")
    identities["platform"] = _person(
        draw, "platform", "ada@example.com", frozenset({"get", "list", "create", "rotate"})
    )
    identities["contractor"] = _person(draw, "contractor", "sam@example.com", frozenset({"get", "list"}))
    tenant_owned = tuple(
        Owned(Owner.tenant(tenant, integration), "tenant-kek-eu" if tenant in EU_TENANTS else "tenant-kek")
        for tenant in TENANTS
        for integration in INTEGRATIONS
    )
    return Company(identities, tenant_owned + tuple(Owned(Owner.secret(name), "internal-kek") for name in SECRETS))


def _uuid(draw: random.Random) -> str:
    return str(uuid.UUID(bytes=draw.randbytes(16), version=4))


def _workload(draw: random.Random, name: str, permissions: frozenset[str], address: str | None = None) -> Identity:
    address = address or f"10.20.{draw.randrange(4)}.{draw.randrange(2, 250)}"
    return Identity(name, _uuid(draw), _uuid(draw), address, permissions)


def _person(draw: random.Random, name: str, upn: str, permissions: frozenset[str]) -> Identity:
    return Identity(name, _uuid(draw), _uuid(draw), f"198.51.100.{draw.randrange(2, 250)}", permissions, upn)
