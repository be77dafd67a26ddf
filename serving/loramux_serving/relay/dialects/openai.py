"""OpenAI's words."""

import msgspec

from loramux_adapters.errors import LoramuxError
from loramux_serving.http_errors import error_lines, openai_body, openai_error, status_of
from loramux_serving.relay.dialect import Asked, Words
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.headers import AUTHORIZATION, REQUEST_ID
from loramux_serving.relay.refusal import Refusal
from loramux_serving.relay.request import OpenAIRequest, decode

_JSON = (b"content-type", b"application/json")


class OpenAIDialect:
    """`relay.dialect.Dialect`, for one path of OpenAI's interface."""

    id_headers: tuple[bytes, ...] = (REQUEST_ID,)

    def __init__(self, path: str) -> None:
        self._path = path

    def engine_headers(self, headers: Headers) -> Headers:
        return headers

    def signed(self, asked: Asked) -> bool:
        return False

    def credentials(self, asked: Asked, body: bytes) -> str | None:
        return bearer(asked)

    def decode(self, asked: Asked, body: bytes) -> OpenAIRequest:
        return decode(self._path, body)

    def error(self, error: LoramuxError | Refusal) -> Words:
        return openai_words(error)


def bearer(asked: Asked) -> str | None:
    """The value of the `Authorization` header."""
    value = asked.told.get(AUTHORIZATION)
    return None if value is None else value.decode("latin-1")


def openai_words(error: LoramuxError | Refusal) -> Words:
    """An error in OpenAI's shape."""
    if isinstance(error, Refusal):
        return Words(error.status, [_JSON], msgspec.json.encode(openai_error(error.status, error.message, error.code)))
    return Words(status_of(error), [_JSON, *error_lines(error)], openai_body(error))
