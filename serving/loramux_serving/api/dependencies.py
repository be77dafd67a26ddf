"""What every route may ask for."""

from typing import Annotated, cast

from fastapi import Depends, Header, HTTPException, Request

from loramux_serving.auth import sigv4
from loramux_serving.relay.dialect import Asked
from loramux_serving.relay.headers import first_of_each
from loramux_serving.relay.ports import Principal
from loramux_serving.services import Services


def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(_services)]


def _principal(services: ServicesDep, authorization: Annotated[str | None, Header()] = None) -> Principal:
    return services.keyring.authenticate(authorization)


PrincipalDep = Annotated[Principal, Depends(_principal)]


def require_admin(services: ServicesDep, principal: PrincipalDep) -> Principal:
    """Raises `Unauthenticated`, `Forbidden`."""
    services.keyring.require_admin(principal)
    return principal


async def _body(request: Request, services: ServicesDep) -> bytes:
    """Whole, in memory; 413 where it is larger than `relay.max_body_bytes`."""
    limit_bytes = services.settings.relay.max_body_bytes
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise HTTPException(413, f"The request body is larger than {limit_bytes} bytes")
    return bytes(body)


BodyDep = Annotated[bytes, Depends(_body)]


def signed_principal(request: Request, services: ServicesDep, body: BodyDep) -> Principal:
    """Who signed the request with an AWS key: no other credentials count, and nobody is anonymous. A route that has
    this takes the body from `BodyDep`, since it can be read once. Raises `Unauthenticated`, with the code that AWS has
    for it in `details["aws_code"]`."""
    scope = request.scope
    target: bytes = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    asked = Asked(request.method.encode("ascii"), target, headers, first_of_each(headers))
    return services.keyring.authenticate(sigv4.read(asked, body))


SignedPrincipalDep = Annotated[Principal, Depends(signed_principal)]
