"""The week's story: which acts are played when, in which words."""

from streams.demo import attacks, keycare
from streams.demo.company import ADMIN
from streams.demo.simclock import MINUTE_US, WEEK_START_US
from streams.demo.stage import Act

_DAY = 24 * 60


def _at(day: int, hour: int, minute: int = 0) -> int:
    return WEEK_START_US + (day * _DAY + hour * 60 + minute) * MINUTE_US


STORY = (
    Act(_at(0, 1), "billing's nightly job looks for tokens in the wrong place", ("billing",), attacks.wrong_context),
    Act(
        _at(0, 3),
        "services keep their tenants' tokens in the vault of tokens",
        ("crm-sync", "invoicing", "mailer"),
        keycare.keep_tokens,
    ),
    Act(_at(0, 9), "the inventory job lists keys", (), attacks.list_keys),
    Act(_at(1, 10), "a tenant regenerates its token; its DEK is rotated", (ADMIN,), keycare.regenerate),
    Act(_at(1, 14), "an engineer looks at key versions in the portal", (), attacks.look_at_key),
    Act(_at(2, 7), "what is under the old version is re-encrypted", (ADMIN,), keycare.finish_rotation),
    Act(_at(2, 9), "a tenant's key is revoked: compromise suspected", (ADMIN, "invoicing"), keycare.compromise),
    Act(_at(2, 12), "invoicing still tries to decrypt with the revoked key", ("invoicing",), attacks.use_revoked),
    Act(_at(2, 15), "the mailer asks for a token that has expired", ("mailer",), keycare.use_expired),
    Act(_at(2, 18), "two people ask for the revoked version's destruction", (ADMIN,), keycare.ask_destruction),
    Act(
        _at(3, 2, 30),
        "somebody with ci-deploy's identity unwraps keys straight at the vault",
        (),
        attacks.stolen_identity,
    ),
    Act(_at(3, 10), "a KEK gets a new version; its DEKs are rewrapped", (ADMIN,), keycare.rotate_kek),
    Act(_at(4, 9), "the inventory job lists keys", (), attacks.list_keys),
    Act(_at(4, 10), "a tenant leaves", (ADMIN,), keycare.offboard),
    Act(_at(4, 21), "a contractor tries to purge a KEK", (), attacks.denied_purge),
    Act(_at(5, 4), "the clean-up looks for expired tokens", (ADMIN,), keycare.clean_up),
    Act(_at(5, 15), "the revoked version's cooling-off is over", (ADMIN,), keycare.destroy),
)
