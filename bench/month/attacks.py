"""Attacks on KEKs and on the sight of them: acts at the vaults, events of our services, and what each has to give."""

from typing import Final

from bench.month.acts import Act, us
from bench.month.calls import FORBIDDEN
from bench.month.fleet import ADMIN, Fleet
from bench.month.keytable import Key, Standing
from bench.month.plan import CUT_VAULT, HOUR_S, KEKS, Calendar
from bench.month.records import SETTING_DELETED, SETTING_WRITTEN
from bench.month.staff import BACKUP
from bench.month.told import AT_ONCE_S, CUT_S, EVENT_S, PROVISIONAL_S, Planted, Told
from bench.month.traffic import read, secret
from cryptocore.events import Operation, Reason
from cryptocore.keys import KeyState

REVOKED_SERVICE: Final = "crm-sync"
_TOR: Final = "185.220.7.9"
_DISABLED: Final = "archive-kek"
_REENABLED_S: Final = 5 * HOUR_S


class Attacks:
    """The attacks of a month; `acts` are theirs and `planted` what they have to give."""

    def __init__(self, calendar: Calendar, fleet: Fleet) -> None:
        self._calendar = calendar
        self._fleet = fleet
        self.acts: list[Act] = []
        self.planted: list[Planted] = []
        self.repaired_s = 0.0

    def before_work(self) -> None:
        """What changes keys: drawn before the services use them."""
        self._after_revocation(self._calendar.attack_at("revoked"))
        self._disabled(self._calendar.attack_at("disabled"))
        self._wrap_under_disabled(self._calendar.attack_at("wrap"))

    def after_work(self) -> None:
        """The rest, some of which copies what the services left in the log."""
        at = self._calendar.attack_at
        self._stolen(at("stolen"))
        self._copied_ids(at("copied"))
        self._service_identity(at("identity"))
        self._backup(at("backup"))
        self._denied_purge(at("purge"))
        self._logging_cut(at("cut"))

    # KEKs used by somebody else

    def _stolen(self, at_s: float) -> None:
        for number in range(13):
            self._unwrap(at_s + number * 7, "ci-deploy", "tenant-kek", _TOR)
        self._plant(
            "stolen principal unwraps", at_s, "unaccounted_kek_access", "ci-deploy", "critical", AT_ONCE_S, "tenant-kek"
        )

    def _copied_ids(self, at_s: float) -> None:
        """A thief with the ledger's identity copies ids of its last calls, and calls soon after them."""
        made = self._fleet.last_made("ledger", at_s, 3)
        at_s = made[-1].at_us / 1_000_000 + 30
        for number, one in enumerate(made):
            for copied in (one.call_id, one.request_id):
                self._unwrap(at_s + number, "ledger", "tokens-kek", _TOR, one.kek_version, copied)
        self._plant("copied ids", at_s, "unaccounted_kek_access", "ledger", "high", PROVISIONAL_S, "tokens-kek")

    def _service_identity(self, at_s: float) -> None:
        for number in range(4):
            self._unwrap(at_s + number * 20, "billing", "tenant-kek", _TOR)
        self._plant(
            "a service's identity, stolen",
            at_s,
            "unaccounted_kek_access",
            "billing",
            "high",
            PROVISIONAL_S,
            "tenant-kek",
        )

    def _unwrap(  # noqa: PLR0917 - the fields of an act, in their order
        self, at_s: float, who: str, alias: str, address: str, version: str = "", correlation: str = ""
    ) -> None:
        vault, name = KEKS[alias]
        self.acts.append(
            Act(
                at_us=us(at_s),
                principal=who,
                vault=vault,
                operation="KeyUnwrap",
                name=name,
                version=version or self._fleet.keks.at(alias, at_s),
                address=address,
                correlation=correlation,
            )
        )

    # Keys used after their end

    def _after_revocation(self, at_s: float) -> None:
        """A key is revoked; a process that keeps to an old copy of the key table goes on with it an hour later."""
        fleet = self._fleet
        key = fleet.of(REVOKED_SERVICE)[0]
        old = key.at(at_s)
        gone = Standing(old.version, old.revision + 1, old.kek_version, KeyState.REVOKED)
        admin = fleet.process(ADMIN, at_s - HOUR_S)
        fleet.tell(admin, at_s - HOUR_S + 5, Operation.REVOKE, key, gone, reason=Reason.COMPROMISE_SUSPECTED)
        admin.close(us(at_s - HOUR_S + 8))
        key.history.append((at_s - HOUR_S - 900, gone))  # services let go of it a while before: no job has it in hand
        process = fleet.process(REVOKED_SERVICE, at_s - 10)
        for number in range(3):
            end_us = fleet.caller.call(process, us(at_s + number * 60), Operation.UNWRAP, key, old)
            process.say(
                end_us + 9_000, [fleet.caller.event(process, end_us + 9_000, Operation.DECRYPT, key, key.ref(old))]
            )
        process.close(us(at_s + 240))
        self.planted.append(
            Planted(
                title="unwraps after revoke",
                at_s=at_s,
                told=Told("revoked_key_decrypt", "", key.id),
                severity="critical",
                bound_s=EVENT_S,
            )
        )

    def _disabled(self, at_s: float) -> None:
        change = {"type": "RSA", "size": 3072, "attributes": {"enabled": False}}
        self._admin(at_s, "person-3", "KeyUpdate", _DISABLED, change=change)
        self._plant("a KEK is disabled", at_s, "kek_administration", "person-3", "high", AT_ONCE_S, _DISABLED)

    def _wrap_under_disabled(self, at_s: float) -> None:
        """A key is made under the disabled KEK: the vault wraps, and refuses to unwrap; then the KEK is enabled."""
        fleet = self._fleet
        key = Key(fleet.draw.randbytes(16).hex(), "archiver", fleet.of("archiver")[0].owner, _DISABLED)
        fresh = Standing(1, 1, fleet.keks.at(_DISABLED, at_s), KeyState.PRE_ACTIVATION)
        process = fleet.process(ADMIN, at_s - 5)
        end_us = fleet.caller.call(process, us(at_s), Operation.WRAP, key, fresh, spared=True)
        end_us = fleet.caller.call(
            process, end_us + 20_000, Operation.UNWRAP, key, fresh, status=FORBIDDEN, spared=True
        )
        process.close(end_us + us(2))
        self._plant("a wrap under a disabled KEK", at_s, "disabled_kek_wrap", ADMIN, "high", AT_ONCE_S, _DISABLED)
        change = {"type": "RSA", "size": 3072, "attributes": {"enabled": True}}
        self._admin(at_s + _REENABLED_S, "person-1", "KeyUpdate", _DISABLED, change=change)

    # Administration

    def _backup(self, at_s: float) -> None:
        self._admin(at_s, "person-2", "KeyBackup", "tenant-kek")
        self._plant("a KEK is backed up", at_s, "kek_administration", "person-2", "high", AT_ONCE_S, "tenant-kek")

    def _denied_purge(self, at_s: float) -> None:
        self._admin(at_s, "contractor", "KeyPurge", "tokens-kek", status=FORBIDDEN)
        self._plant("a denied purge", at_s, "kek_administration", "contractor", "high", AT_ONCE_S, "tokens-kek")

    def _admin(
        self, at_s: float, who: str, operation: str, alias: str, *, status: int = 200, change: object = None
    ) -> None:
        vault, name = KEKS[alias]
        self.acts.append(
            Act(
                at_us=us(at_s),
                principal=who,
                vault=vault,
                operation=operation,
                name=name,
                status=status,
                address="203.0.113.66",
                change=change if isinstance(change, dict) else None,
                spared=True,
            )
        )

    def _logging_cut(self, at_s: float) -> None:
        """The diagnostic setting is deleted; the vault logs nothing until somebody puts it back, and looks."""
        for when_s, operation in ((at_s, SETTING_DELETED), (at_s + CUT_S, SETTING_WRITTEN)):
            self.acts.append(
                Act(at_us=us(when_s), principal="ci-deploy", vault=CUT_VAULT, operation=operation, spared=True)
            )
        for order in range(3):  # whoever puts it back looks whether the log speaks again
            self.acts.append(read(us(at_s + CUT_S + 300 + order), "backup", CUT_VAULT, secret(order), BACKUP))
        self.repaired_s = at_s + CUT_S
        told = Told("vault_logging_cut", "ci-deploy", CUT_VAULT)
        self.planted.append(
            Planted(
                title="diagnostic settings cut, then silence",
                at_s=at_s,
                told=told,
                severity="critical",
                bound_s=AT_ONCE_S,
            )
        )

    def silenced(self, act: Act) -> bool:
        """Whether the cut vault did not log this act."""
        end_us = us(self.repaired_s)
        own = act.operation not in (SETTING_DELETED, SETTING_WRITTEN)
        return own and act.vault == CUT_VAULT and end_us - us(CUT_S) <= act.at_us < end_us

    # What is written down of them

    def _plant(  # noqa: PLR0917 - the fields of one entry, in their order
        self, title: str, at_s: float, rule: str, who: str, severity: str, bound_s: float, alias: str
    ) -> None:
        vault, name = KEKS[alias]
        told = Told(rule, who, f"{vault}/{name}")
        self.planted.append(Planted(title=title, at_s=at_s, told=told, severity=severity, bound_s=bound_s))
