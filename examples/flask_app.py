"""A Flask service that keeps tokens of its customers' integrations; its views block, so they use `core.sync`.

KEYTRAIL_CORE_…=… gunicorn --preload 'examples.flask_app:from_env()'
"""

from flask import Flask, request

from cryptocore import CryptoCore, Owner
from cryptocore.contrib.flask import Keytrail


def from_env() -> Flask:
    """Make the service of the process's environment; each worker opens the core with its first use."""
    return make_app(CryptoCore.from_env())


def make_app(core: CryptoCore) -> Flask:
    """Make the service around a core."""
    app = Flask(__name__)
    Keytrail(app, core, actor=user_of)
    rows: dict[str, bytes] = {}  # the service's database

    @app.put("/tenants/<tenant>/tokens/<row>")
    def save(tenant: str, row: str) -> tuple[str, int]:
        rows[row] = core.sync.encrypt(
            request.get_json()["token"].encode(),
            owner=Owner.tenant(tenant, "crm"),
            record=f"tokens/{row}",
            purpose="store-token",
            create_missing=True,
        )
        return "", 204

    @app.get("/tenants/<tenant>/tokens/<row>")
    def load(tenant: str, row: str) -> dict[str, str]:
        token = core.sync.decrypt(
            rows[row], owner=Owner.tenant(tenant, "crm"), record=f"tokens/{row}", purpose="crm-sync"
        )
        return {"token": token.decode()}

    return app


def user_of() -> str | None:
    """Say who sends the request: the proxy in front of this service authenticates, and names the user."""
    user = request.headers.get("X-User")
    return None if user is None else f"user:{user}"
