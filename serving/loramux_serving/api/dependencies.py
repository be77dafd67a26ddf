"""What every route may ask for."""

from typing import Annotated, cast

from fastapi import Depends, Header, Request

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
