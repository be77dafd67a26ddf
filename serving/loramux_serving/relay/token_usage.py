"""The tokens that an answer says it used. Pure."""

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """`usage` of chat, completions and embeddings, and under other names of responses."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def prompt(self) -> int:
        return self.prompt_tokens or self.input_tokens or 0

    @property
    def completion(self) -> int:
        return self.completion_tokens or self.output_tokens or 0

    @property
    def total(self) -> int:
        prompt = self.prompt_tokens or self.input_tokens or 0
        return prompt + (self.completion_tokens or self.output_tokens or 0)


class _Nested(msgspec.Struct, frozen=True):
    usage: Usage | None = None


class _Answer(msgspec.Struct, frozen=True):
    usage: Usage | None = None
    response: _Nested | None = None
    choices: list[msgspec.Raw] | None = None


_decoder = msgspec.json.Decoder(_Answer)
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def usage_of(document: bytes) -> Usage | None:
    """Usage of a JSON answer, or of a frame of a stream; None where it has none or is not JSON."""
    try:
        answer = _decoder.decode(document)
    except _NOT_JSON:
        return None
    return answer.usage or (answer.response.usage if answer.response else None)


def is_usage_only(document: bytes) -> bool:
    """True for the frame that `stream_options.include_usage` adds: usage, and an empty list of choices."""
    try:
        answer = _decoder.decode(document)
    except _NOT_JSON:
        return False
    return answer.usage is not None and answer.choices == []
