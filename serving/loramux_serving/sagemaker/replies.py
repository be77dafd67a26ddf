"""Errors in the service's words, which its clients look for."""

from loramux_adapters.errors import LimitExceeded, NameTaken, RequestInvalid, ResourceNotFound
from loramux_adapters.model import ResourceKind
from loramux_serving.sagemaker.arns import Place, readable

_WORDS = {
    ResourceKind.MODEL: "model",
    ResourceKind.ENDPOINT_CONFIG: "endpoint configuration",
    ResourceKind.ENDPOINT: "endpoint",
    ResourceKind.COMPONENT: "inference component",
}


def not_found(place: Place, kind: ResourceKind, name: str) -> ResourceNotFound:
    return ResourceNotFound(f'Could not find {_WORDS[kind]} "{place.arn(kind, readable(name))}".')


def taken(place: Place, kind: ResourceKind, name: str) -> NameTaken:
    return NameTaken(f'Cannot create already existing {_WORDS[kind]} "{place.arn(kind, readable(name))}".')


def unsupported(what: str, instead: str = "") -> RequestInvalid:
    return RequestInvalid(f"{what} is not supported by this gateway.{f' {instead}' if instead else ''}")


def too_many_copies(wanted: int, limit: int) -> LimitExceeded:
    return LimitExceeded(
        f"The limit for copies of the base on this gateway is {limit} Instances, with a request delta of {wanted} "
        f"Instances: it starts as many replicas as engine.replicas says at most."
    )


def fleet_taken(owner: str) -> LimitExceeded:
    return LimitExceeded(
        f"The limit for base models on this gateway is 1, and {owner} is that one: delete it first, or use another "
        "gateway."
    )
