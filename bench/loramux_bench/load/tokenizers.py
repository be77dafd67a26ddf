"""How long a text is in tokens: by the model's own tokenizer, or by what the endpoint counted for known texts."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import tokenizers

from loramux_bench.errors import EndpointError, ScenarioError
from loramux_bench.scenario import Prompts, find_source

Observation = tuple[int, int]
"""Words of a text, and the tokens of the whole prompt as the endpoint counted it."""

TOKENS_PER_WORD = 1.16
"""Of the bench's own text by SmolLM2's tokenizer; assumed where neither a tokenizer nor an endpoint tells."""

_WORD = re.compile(r"\S+")


class Ruler(Protocol):
    """Measures texts, without what a chat template adds."""

    def count(self, text: str) -> int:
        """Tokens, ≥ 0."""

    def cut(self, text: str, tokens: int) -> str:
        """The beginning of `text` that has so many tokens, ≥ 1; all of it where it has fewer."""


class Tokenizer:
    """A model's own. A `Ruler` whose cuts are exact wherever one between two characters is. They end in no space, since
    chat templates take that off."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.no_truncation()
        inner.no_padding()
        self._inner = inner

    @classmethod
    def load(cls, place: str) -> "Tokenizer":
        """A `tokenizer.json`, or a directory with one. Raises `ScenarioError`."""
        path = find_source(place)
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            content = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ScenarioError(f"The tokenizer {path} can not be read: {error}.") from error
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: str, source: str) -> "Tokenizer":
        """From the content of a `tokenizer.json`. Raises `ScenarioError`."""
        try:
            return cls(tokenizers.Tokenizer.from_str(content))
        except Exception as error:  # the library raises nothing narrower
            raise ScenarioError(f"{source} holds no tokenizer that can be used: {error}.") from error

    def count(self, text: str) -> int:
        return len(self._inner.encode(text, add_special_tokens=False))

    def cut(self, text: str, tokens: int) -> str:
        ends = [end for _, end in self._inner.encode(text, add_special_tokens=False).offsets]
        if len(ends) <= tokens:
            return text
        # A cut inside a word can change how what is left of it is split: the nearest ends are tried too.
        best, missed = "", tokens
        for position in sorted(
            range(max(1, tokens - 4), min(len(ends), tokens + 4) + 1), key=lambda p: abs(p - tokens)
        ):
            candidate = text[: ends[position - 1]].rstrip()
            off = abs(self.count(candidate) - tokens)
            if candidate and off < missed:
                best, missed = candidate, off
            if not missed:
                break
        return best or text[: ends[tokens - 1]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What an endpoint's counts say of texts of one kind. A `Ruler`: right on average, off by what words differ."""

    tokens_per_word: float = TOKENS_PER_WORD
    overhead_tokens: float = 0.0
    """What the chat template adds to every prompt; no part of a text's own length."""

    def count(self, text: str) -> int:
        return round(len(text.split()) * self.tokens_per_word)

    def cut(self, text: str, tokens: int) -> str:
        wanted = max(1, round(tokens / self.tokens_per_word))
        for number, word in enumerate(_WORD.finditer(text), 1):
            if number == wanted:
                return text[: word.end()]
        return text


def fit(observations: Sequence[Observation]) -> Calibration:
    """The line through them by least squares: its slope is tokens per word, its height at 0 words the overhead.

    One observation gives the slope alone, none the assumption. Raises `EndpointError` where more words do not cost more
    tokens.
    """
    if not observations:
        return Calibration()
    words = [float(words) for words, _ in observations]
    tokens = [float(tokens) for _, tokens in observations]
    if len(set(words)) == 1:
        slope, overhead = statistics.fmean(tokens) / words[0] if words[0] else 0.0, 0.0
    else:
        slope, overhead = statistics.linear_regression(words, tokens)
    if not slope > 0:
        raise EndpointError(
            "The endpoint counts no more tokens for longer prompts, so lengths can not be set by asking it. Give a "
            "tokenizer in prompts.tokenizer."
        )
    return Calibration(slope, max(0.0, overhead))


def ruler_for(prompts: Prompts, observations: Sequence[Observation]) -> Ruler:
    """By the scenario's tokenizer, else by these observations. Raises `ScenarioError` and `EndpointError`."""
    return Tokenizer.load(prompts.tokenizer) if prompts.tokenizer else fit(observations)
