"""How TGI's callers are told that something failed: status, sentence and `error_type`. Pure, and one table."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from loramux_adapters import errors
from loramux_adapters.errors import LoramuxError
from loramux_serving.http_errors import error_lines, status_of
from loramux_serving.relay.dialect import Words
from loramux_serving.relay.dialects.completion_answer import EngineFault
from loramux_serving.relay.refusal import Refusal

_JSON = (b"content-type", b"application/json")


class TgiError(msgspec.Struct, frozen=True):
    """TGI's `ErrorResponse`."""

    error: str
    error_type: str


class Kind(msgspec.Struct, frozen=True):
    """A kind of error that TGI has; `prefix` begins its sentence."""

    status: int
    error_type: str
    prefix: str = ""

    def said(self, message: str) -> TgiError:
        return TgiError(self.prefix + message, self.error_type)


VALIDATION = Kind(422, "validation", "Input validation error: ")
GENERATION = Kind(424, "generation", "Request failed during generation: ")
OVERLOADED = Kind(429, "overloaded", "Model is overloaded: ")
INCOMPLETE = Kind(500, "incomplete_generation", "Incomplete generation: ")
INCOMPLETE_STREAM = Kind(500, "incomplete_generation_stream", "Incomplete generation stream: ")

KINDS: Mapping[type[LoramuxError], Kind] = MappingProxyType(
    {
        LoramuxError: INCOMPLETE,
        errors.RequestInvalid: VALIDATION,
        errors.NotFound: VALIDATION,
        errors.Conflict: VALIDATION,
        errors.ArtifactError: GENERATION,
        errors.StorageError: GENERATION,
        errors.EngineError: GENERATION,
        errors.OperationInterrupted: GENERATION,
        errors.AdmissionError: OVERLOADED,
    }
)
"""A class that is not named here has the kind of its nearest base. Who is not let in has none in TGI: these keep
their status, and their code is the `error_type`."""


def tgi_words(error: LoramuxError | Refusal) -> Words:
    """An error of the gateway's own."""
    if isinstance(error, Refusal):
        return Words(error.status, [_JSON], msgspec.json.encode(TgiError(error.message, error.code)))
    status, said = told(error)
    return Words(status, [_JSON, *error_lines(error)], msgspec.json.encode(said))


def told(error: LoramuxError) -> tuple[int, TgiError]:
    if isinstance(error, errors.AuthError):
        return status_of(error), TgiError(error.message, error.code)
    kind = next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)
    return kind.status, kind.said(error.message)


def of_fault(fault: EngineFault, engine_name: str, model: str) -> tuple[int, TgiError]:
    """An error of the engine's."""
    kind = VALIDATION if fault.status in (400, 413, 422) else OVERLOADED if fault.status == 429 else GENERATION
    return kind.status, kind.said(fault.told(engine_name, model))
