"""A FastAPI service that keeps tokens of its customers' integrations.

KEYTRAIL_CORE_…=… uvicorn --factory examples.fastapi_app:from_env
"""

from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse

from cryptocore import CoreError, CryptoCore, Owner
from cryptocore.contrib.answers import http_status
from cryptocore.contrib.asgi import ActorMiddleware


def from_env() -> FastAPI:
    """Make the service of the process's environment; the core opens with the application's lifespan."""
    return make_app(CryptoCore.from_env())


def make_app(core: CryptoCore) -> FastAPI:
    """Make the service around a core."""
    app = FastAPI(lifespan=core.lifespan)
    app.add_middleware(ActorMiddleware, actor=user_of)
    rows: dict[str, bytes] = {}  # the service's database

    @app.put("/tenants/{tenant}/tokens/{row}", status_code=204)
    async def save(tenant: str, row: str, token: Annotated[str, Body(embed=True)]) -> None:
        rows[row] = await core.encrypt(
            token.encode(),
            owner=Owner.tenant(tenant, "crm"),
            record=f"tokens/{row}",
            purpose="store-token",
            create_missing=True,
        )

    @app.get("/tenants/{tenant}/tokens/{row}")
    async def load(tenant: str, row: str) -> dict[str, str]:
        token = await core.decrypt(
            rows[row], owner=Owner.tenant(tenant, "crm"), record=f"tokens/{row}", purpose="crm-sync"
        )
        return {"token": token.decode()}

    @app.exception_handler(CoreError)
    async def answer(_: Request, error: CoreError) -> JSONResponse:
        return JSONResponse({"error": type(error).__name__}, status_code=http_status(error))

    return app


def user_of(scope: Any) -> str | None:
    """Say who sends the request: the proxy in front of this service authenticates, and names the user."""
    user = dict(scope["headers"]).get(b"x-user")
    return None if user is None else f"user:{user.decode('ascii')}"
