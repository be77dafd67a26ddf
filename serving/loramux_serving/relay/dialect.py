"""What a kind of client speaks: how its requests are read, and how its answers look.

The relay knows one way of a request (`handler.py`); dialects differ in words. vLLM is always asked in OpenAI's words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from loramux_adapters.errors import LoramuxError
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.refusal import Refusal
from loramux_serving.relay.signed_request import Credentials
from loramux_serving.relay.token_usage import Usage


class Component(msgspec.Struct, frozen=True, array_like=True):
    """A model as SageMaker's clients name it: an inference component (None: the endpoint's own model) behind an
    endpoint. `adapter` is one of the endpoint's own model, which the body names, as LMI has it."""

    endpoint: str
    name: str | None
    adapter: str | None = None


ModelName = str | Component
"""How a request says on which model it runs."""


def shown(model: ModelName) -> str:
    """A model's name for its callers."""
    return model if isinstance(model, str) else model.name or model.adapter or model.endpoint


class Asked(msgspec.Struct, frozen=True):
    """A request as it came, but for its body. `target` is the request line's; `told` has the first value of each
    header, by lower-case name."""

    method: bytes
    target: bytes
    headers: Headers
    told: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Words:
    """An answer of the gateway's own. `headers` are without framing, request id and connection."""

    status: int
    headers: Headers
    body: bytes


class StreamForm(Protocol):
    """One stream on its way. The output does not depend on how the input was cut into pieces."""

    @property
    def tokens_seen(self) -> bool:
        """A token has passed."""
        ...

    @property
    def failed(self) -> bool:
        """The engine has sent an error in a frame."""
        ...

    @property
    def usage(self) -> Usage | None:
        """Tokens used, as far as the engine has said."""
        ...

    def feed(self, data: bytes) -> bytes:
        """From the engine's bytes, those for the caller. Raises `EngineFailed` for what can not be read."""
        ...

    def finish(self) -> bytes:
        """What is left when the engine's stream has ended."""
        ...

    def broken(self, error: LoramuxError) -> bytes:
        """How a stream ends that the engine broke off."""
        ...


class Pieces(Protocol):
    """A document that is passed on as it comes, since it is too large to be held."""

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class AnswerForm(Protocol):
    """How the answers to one request look, from one engine."""

    def headers(self, status: int, engine: Headers, own: bytes, *, streamed: bool) -> bytes:
        """The lines of the answer's head, without framing and `Connection`. `status` and `engine` are the engine's,
        `own` the gateway's lines."""
        ...

    def stream(self) -> StreamForm: ...

    def document(self, status: int, body: bytes) -> tuple[int, bytes]:
        """The engine's whole answer, or its error (`status` 400 and more), as the caller gets it. Raises
        `EngineFailed` for an answer that can not be read."""
        ...

    def pieces(self) -> Pieces | None:
        """For a document that is too large to be held; None where it must be read whole."""
        ...


class InferenceRequest(Protocol):
    """One request, read."""

    @property
    def model(self) -> ModelName: ...

    @property
    def stream(self) -> bool: ...

    @property
    def path(self) -> str:
        """Where the engine is asked."""
        ...

    def body(self, engine_name: str) -> bytes:
        """What the engine is asked; `engine_name` is the model's name there."""
        ...

    def form(self, engine_name: str) -> AnswerForm: ...


class Dialect(Protocol):
    """Stateless."""

    id_headers: tuple[bytes, ...]
    """Those that tell the id of a request that got an error."""

    def engine_headers(self, headers: Headers) -> Headers:
        """What of a request's headers the engine may get."""
        ...

    def signed(self, asked: Asked) -> bool:
        """The caller shows a signature over the whole request: who it is, is known when the body has come."""
        ...

    def credentials(self, asked: Asked, body: bytes) -> Credentials:
        """Raises `Unauthenticated` for a signature that can not be read. Without one they follow from the head,
        whatever its Content-Length."""
        ...

    def decode(self, asked: Asked, body: bytes) -> InferenceRequest:
        """Raises `RequestInvalid`, with `details["param"]` where one parameter is at fault."""
        ...

    def error(self, error: LoramuxError | Refusal) -> Words:
        """How a caller is told."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """`label` names the route in logs and metrics."""

    label: str
    dialect: Dialect
