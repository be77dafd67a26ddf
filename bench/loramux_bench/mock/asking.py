"""What the mock reads of a request's body. Everything else in it is passed over."""

import msgspec


class Part(msgspec.Struct):
    text: str = ""


class Message(msgspec.Struct):
    content: str | list[Part] | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool = False
    continuous_usage_stats: bool = False
    """vLLM's own."""


class Body(msgspec.Struct):
    """Of `/v1/chat/completions` (`messages`) and of `/v1/completions` (`prompt`: text, tokens, or lists of them)."""

    model: str
    messages: list[Message] = []
    prompt: str | list[int | str | list[int]] = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def tokens(self) -> int:
        """How many are asked for; 16 where the body does not say."""
        asked = self.max_completion_tokens if self.max_tokens is None else self.max_tokens
        return 16 if asked is None else asked

    @property
    def words(self) -> int:
        """Of the prompt, between white space; a token that is given as a number is a word."""
        return sum(_words(message.content) for message in self.messages) + _words(self.prompt)


def _words(text: str | list[Part] | list[int | str | list[int]] | None) -> int:
    if not text:
        return 0
    if isinstance(text, str):
        return len(text.split())
    return sum(_words_of_one(part) for part in text)


def _words_of_one(part: Part | int | str | list[int]) -> int:
    if isinstance(part, Part):
        return len(part.text.split())
    if isinstance(part, str):
        return len(part.split())
    return len(part) if isinstance(part, list) else 1


_decoder = msgspec.json.Decoder(Body)


def decode(body: bytes) -> Body:
    """Raises `msgspec.DecodeError` for a body that is no request."""
    return _decoder.decode(body)
