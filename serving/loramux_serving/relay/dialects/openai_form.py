"""How answers look in OpenAI's words, which are vLLM's own: only names are put back."""

from functools import lru_cache

from loramux_adapters.errors import LoramuxError
from loramux_serving.http_errors import openai_body
from loramux_serving.relay.framing import Headers
from loramux_serving.relay.headers import caller_lines
from loramux_serving.relay.renaming import IncrementalRenaming, Renaming
from loramux_serving.relay.stream import FrameScanner

_KEPT_NAMES = 4096

renaming = lru_cache(_KEPT_NAMES)(Renaming)


class OpenAIForm:
    """`relay.dialect.AnswerForm`. Immutable."""

    __slots__ = ("_drop_usage", "_renaming")

    def __init__(self, engine_name: str, caller_name: str, *, drop_usage: bool) -> None:
        """`drop_usage`: leave a stream's usage-only frame out, because the caller did not ask for it."""
        self._renaming = renaming(engine_name, caller_name)
        self._drop_usage = drop_usage

    def headers(self, status: int, engine: Headers, own: bytes, *, streamed: bool) -> bytes:
        return caller_lines(tuple(engine)) + own

    def stream(self) -> "OpenAIStream":
        return OpenAIStream(self._renaming, drop_usage=self._drop_usage)

    def document(self, status: int, body: bytes) -> tuple[int, bytes]:
        return status, self._renaming.apply(body) if status < 400 else self._renaming.apply_anywhere(body)

    def pieces(self) -> IncrementalRenaming:
        return IncrementalRenaming(self._renaming)


@lru_cache(_KEPT_NAMES)
def form_of(engine_name: str, caller_name: str, drop_usage: bool) -> OpenAIForm:
    return OpenAIForm(engine_name, caller_name, drop_usage=drop_usage)


class OpenAIStream(FrameScanner):
    """`relay.dialect.StreamForm`."""

    def broken(self, error: LoramuxError) -> bytes:
        return b"data: %b\n\n" % openai_body(error)
