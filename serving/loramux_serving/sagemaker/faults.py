"""Errors as SageMaker's clients get them, in the JSON 1.1 protocol: the only file that knows which code an error has
there. `details["aws_code"]` goes before the error's class."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from loramux_adapters import errors
from loramux_adapters.errors import LoramuxError

_CODES: Mapping[type[LoramuxError], str] = MappingProxyType(
    {
        errors.RequestInvalid: "ValidationException",
        errors.LimitExceeded: "ResourceLimitExceeded",
        errors.OperationUnknown: "UnknownOperationException",
        errors.Unauthenticated: "UnrecognizedClientException",
        errors.AuthError: "AccessDeniedException",
        # Of models, endpoints and components: clients look for "Could not find" in this one.
        errors.NotFound: "ValidationException",
        errors.NameTaken: "ValidationException",
        errors.Conflict: "ResourceInUse",
        errors.ArtifactError: "ValidationException",
        errors.AdmissionError: "ThrottlingException",
        errors.StorageError: "ServiceUnavailable",
        errors.EngineError: "ServiceUnavailable",
        errors.OperationInterrupted: "ServiceUnavailable",
        LoramuxError: "InternalFailure",
    }
)
"""A class that is not named here has the code of its nearest base."""

_STATUSES: Mapping[str, int] = MappingProxyType({"ServiceUnavailable": 503, "InternalFailure": 500})
"""All others have 400, which clients do not try again."""


class Fault(msgspec.Struct, frozen=True):
    code: str
    message: str

    @property
    def status(self) -> int:
        return _STATUSES.get(self.code, 400)

    @property
    def body(self) -> bytes:
        return msgspec.json.encode({"__type": self.code, "message": self.message})


def fault_of(error: LoramuxError) -> Fault:
    named = error.details.get("aws_code")
    if isinstance(named, str):
        return Fault(named, error.message)
    return Fault(next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), error.message)
