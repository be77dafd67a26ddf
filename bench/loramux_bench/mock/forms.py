"""The bytes of the answers: those of vLLM 0.32, with everything that does not differ from request to request made once.

The form is that of tests/fixtures/vllm_answers, which the tests hold it against.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from loramux_bench.mock.settings import MockSettings
from loramux_bench.mock.timing import Piece, pieces

_FINGERPRINT = ',"system_fingerprint":"mock"'
_NO_DETAILS = ',"completion_tokens_details":null'
_WORDS = (
    " the",
    " quick",
    " brown",
    " fox",
    " jumps",
    " over",
    " a",
    " lazy",
    " dog",
    " while",
    " all",
    " mix",
    " jam",
)
"""One token each."""

DONE = b"data: [DONE]\n\n"
COMMENT = b": mock\n\n"


@dataclass(frozen=True, slots=True)
class Counts:
    """For the usage."""

    prompt: int
    output: int

    def json(self, more: str = "") -> str:
        total = self.prompt + self.output
        return f'{{"prompt_tokens":{self.prompt},"total_tokens":{total},"completion_tokens":{self.output}{more}}}'


class Forms:
    """Of one of the two interfaces. A frame is `prefix` and one tail."""

    def __init__(self, settings: MockSettings, *, chat: bool) -> None:
        self._settings = settings
        self._chat = chat
        self._kind = "chat.completion" if chat else "text_completion"
        self._chunk_kind = "chat.completion.chunk" if chat else "text_completion"
        self._id = "chatcmpl-" if chat else "cmpl-"
        self.pieces = lru_cache(maxsize=4096)(self._pieces)
        self.tails = lru_cache(maxsize=512)(self._tails)
        self._whole_text = lru_cache(maxsize=512)(self._text_of_whole)

    def id(self, number: str) -> str:
        return self._id + number

    def _pieces(self, tokens: int) -> tuple[Piece, ...]:
        reasoning = self._settings.reasoning if self._chat else 0
        return pieces(tokens, self._settings.tokens_per_chunk, reasoning)

    def prefix(self, id: str, created: int, model: str) -> bytes:
        """What every frame of a stream begins with."""
        return (
            f'data: {{"id":{_json(id)},"object":"{self._chunk_kind}","created":{created},"model":{_json(model)},'
            '"choices":['
        ).encode()

    def role(self, counts: Counts | None) -> bytes:
        """Tail of the first frame; none in the interface for completions. `counts` with usage on every frame."""
        if not self._chat:
            return b""
        choice = '{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        return _tail(choice, self._usage(counts) + ',"prompt_token_ids":null,"prompt_text":null')

    def _tails(self, tokens: int, usage_follows: bool) -> tuple[bytes, ...]:
        """One for each piece, of frames without usage. The fingerprint is on the stream's last frame."""
        found = self.pieces(tokens)
        return tuple(
            self._piece_tail(piece, last=piece is found[-1], usage_follows=usage_follows, counts=None)
            for piece in found
        )

    def counted_tail(self, piece: Piece, *, last: bool, usage_follows: bool, prompt: int) -> bytes:
        """Of a frame that carries the usage so far."""
        counts = Counts(prompt, piece.first + piece.count)
        return self._piece_tail(piece, last=last, usage_follows=usage_follows, counts=counts)

    def usage(self, counts: Counts) -> bytes:
        """Tail of the frame without choices."""
        return _tail("", f',"usage":{counts.json()}{_FINGERPRINT}')

    def whole(self, id: str, created: int, model: str, counts: Counts) -> bytes:
        """The body of an answer that is not streamed."""
        usage = counts.json(f',"prompt_tokens_details":null{_NO_DETAILS}')
        after = ',"metrics":null}'
        if self._chat:
            after = ',"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null' + _TRANSFER + after
        else:
            after = _TRANSFER + after
        return (
            f'{{"id":{_json(id)},"object":"{self._kind}","created":{created},"model":{_json(model)},"choices":['
            f'{self._whole_text(counts.output)}],"service_tier":null{_FINGERPRINT},"usage":{usage}{after}'
        ).encode()

    def _text_of_whole(self, tokens: int) -> str:
        found = self.pieces(tokens)
        said = _json("".join(_text(piece) for piece in found if not piece.reasoning))
        if not self._chat:
            return (
                f'{{"index":0,"text":{said},"logprobs":null,"finish_reason":"length","stop_reason":null,'
                '"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null}'
            )
        thought = "".join(_text(piece) for piece in found if piece.reasoning)
        reasoning = f'"{self._settings.reasoning_field}":{_json(thought)}' if thought else '"reasoning":null'
        return (
            f'{{"index":0,"message":{{"role":"assistant","content":{said},"refusal":null,"annotations":null,'
            f'"audio":null,"function_call":null,{reasoning}}},"logprobs":null,"finish_reason":"length",'
            '"stop_reason":null,"token_ids":null,"routed_experts":null}'
        )

    def _piece_tail(self, piece: Piece, *, last: bool, usage_follows: bool, counts: Counts | None) -> bytes:
        reason = '"length"' if last else "null"
        if self._chat:
            name = self._settings.reasoning_field if piece.reasoning else "content"
            stop = ',"stop_reason":null' if last else ""
            choice = (
                f'{{"index":0,"delta":{{"{name}":{_json(_text(piece))}}},"logprobs":null,'
                f'"finish_reason":{reason}{stop},"token_ids":null}}'
            )
        else:
            choice = (
                f'{{"index":0,"text":{_json(_text(piece))},"logprobs":null,"finish_reason":{reason},'
                '"stop_reason":null,"prompt_token_ids":null,"token_ids":null}'
            )
        return _tail(choice, self._usage(counts) + (_FINGERPRINT if last and not usage_follows else ""))

    def _usage(self, counts: Counts | None) -> str:
        if counts is None:
            return ""
        return f',"usage":{counts.json(_NO_DETAILS if self._chat else "")}'


_TRANSFER = ',"kv_transfer_params":null,"ec_transfer_params":null'


def _tail(choice: str, after: str) -> bytes:
    return f"{choice}]{after}}}\n\n".encode()


@lru_cache(maxsize=4096)
def _text_between(first: int, count: int) -> str:
    return "".join(_WORDS[(first + number) % len(_WORDS)] for number in range(count))


def _text(piece: Piece) -> str:
    return _text_between(piece.first % len(_WORDS), piece.count)


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()


def error(message: str, kind: str, code: str | int, param: str | None = None) -> bytes:
    """In OpenAI's shape."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def models(names: Sequence[str], created: int) -> bytes:
    """`/v1/models`: the first name is the base, the parent of the others."""
    return msgspec.json.encode({"object": "list", "data": [_model(name, names[0], created) for name in names]})


def _model(name: str, base: str, created: int) -> dict[str, object]:
    permission = {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": f"/{name}",
        "parent": None if name == base else base,
        "max_model_len": 131_072 if name == base else None,
        "permission": [permission],
    }
