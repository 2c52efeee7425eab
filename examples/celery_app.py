"""A Celery worker that uses tokens on behalf of whoever sent the task.

KEYTRAIL_CORE_…=… celery --app my_module worker      # my_module: app = make_app(CryptoCore.from_env(), broker=…)
"""

from typing import Any

from celery import Celery

from cryptocore import CryptoCore, Owner
from cryptocore.contrib.celery import Keytrail


def make_app(core: CryptoCore, **settings: Any) -> Celery:
    """Make the application around a core, which each worker process opens with its first task.

    Args:
        settings: of Celery, such as `broker`.
    """
    app = Celery("tokens", **settings)
    app.keytrail = Keytrail(app, core, actor="job:scheduler")  # acts in tasks that beat sends

    @app.task(name="tokens.save")  # type: ignore[untyped-decorator]
    def save(tenant: str, row: str, token: str) -> str:
        stored = core.sync.encrypt(
            token.encode(), owner=Owner.tenant(tenant, "crm"), record=f"tokens/{row}", purpose="store-token"
        )
        return stored.hex()

    @app.task(name="tokens.sync")  # type: ignore[untyped-decorator]
    def sync(tenant: str, row: str, stored: str) -> int:
        owner = Owner.tenant(tenant, "crm")
        token = core.sync.decrypt(bytes.fromhex(stored), owner=owner, record=f"tokens/{row}", purpose="crm-sync")
        return len(token)

    return app
