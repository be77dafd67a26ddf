"""Routes that want a signature, `api.dependencies.SignedPrincipalDep`, over ASGI."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import SecretStr

from loramux_adapters.clock import SystemClock
from loramux_adapters.errors import Unauthenticated
from loramux_adapters.model import ApiKey, Role
from loramux_serving.api.dependencies import BodyDep, SignedPrincipalDep
from loramux_serving.auth.api_keys import issue
from loramux_serving.auth.keyring import KeyRing
from loramux_serving.auth.master_key import MasterKey
from loramux_serving.auth.signers import Signers
from loramux_serving.auth.sigv4 import INVALID, MISSING, UNRECOGNIZED
from loramux_serving.auth.verifier import Verifier
from loramux_serving.relay.framing import Headers
from loramux_serving.settings import RelaySettings, Settings

MASTER = "a-master-secret-of-32-characters-and-more"
KEY, SECRET = issue("notebook", Role.ADMIN, SystemClock(), master=MASTER)
SENT, SENT_SECRET = issue("shop", Role.ADMIN, SystemClock())


def app_of(home: Path, *keys: ApiKey) -> FastAPI:
    app = FastAPI()
    settings = Settings(
        home=home, aws_master_key=SecretStr(MASTER), relay=RelaySettings(max_body_bytes=1024), allow_anonymous=True
    )
    signers = Signers(MasterKey(settings), Verifier(SystemClock(), clock_skew_s=300.0))
    app.state.services = SimpleNamespace(settings=settings, keyring=KeyRing(keys, anonymous=True, signers=signers))

    @app.post("/{path:path}")
    async def told(principal: SignedPrincipalDep, body: BodyDep) -> dict[str, str]:
        return {"key": principal.key_id, "body": body.decode()}

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Unauthenticated)
        return JSONResponse(error.details, 403)

    app.add_exception_handler(Unauthenticated, refused)
    return app


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app_of(tmp_path, KEY, SENT))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.example.org:8080") as client:
        yield client


def headers_for(target: str, body: bytes, **more: str) -> Headers:
    assert KEY.access_key_id is not None
    request = AWSRequest("POST", f"http://gateway.example.org:8080{target}", data=body, headers=more)
    SigV4Auth(Credentials(KEY.access_key_id, SECRET), "sagemaker", "us-east-1").add_auth(request)
    return [(name.encode(), value.encode()) for name, value in request.headers.items()]


@pytest.mark.parametrize("target", ["/", "/?a=1&b=%20%2F", "/a%20b/%C3%A9", "/a%2Fb?x"])
async def test_a_signed_call(client: httpx.AsyncClient, target: str) -> None:
    headers = headers_for(target, b"text", **{"X-Amz-Target": "SageMaker.ListEndpoints"})
    answer = await client.post(target, content=b"text", headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"key": KEY.id, "body": "text"})


async def test_other_credentials_do_not_count(client: httpx.AsyncClient) -> None:
    nothing = await client.post("/", content=b"")
    bearer = await client.post("/", content=b"", headers={"Authorization": f"Bearer {SENT_SECRET}"})
    assert nothing.json()["aws_code"] == MISSING
    assert bearer.json()["aws_code"] != UNRECOGNIZED
    assert (nothing.status_code, bearer.status_code) == (403, 403)


async def test_another_body_or_path(client: httpx.AsyncClient) -> None:
    headers = headers_for("/", b"text")
    assert (await client.post("/", content=b"other", headers=headers)).json()["aws_code"] == INVALID
    assert (await client.post("/other", content=b"text", headers=headers)).json()["aws_code"] == INVALID


async def test_a_body_that_is_too_large_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    pieces = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal pieces
        while pieces < 1000:
            pieces += 1
            yield b"x" * 100

    answer = await client.post("/", content=endless())
    assert answer.status_code == 413
