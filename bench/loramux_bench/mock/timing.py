"""When each chunk of an answer is due, and which tokens it carries."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Piece:
    """The tokens `first` to `first + count - 1` of an answer, in one chunk."""

    first: int
    count: int
    reasoning: bool = False


def pieces(tokens: int, per_chunk: int, reasoning: int = 0) -> tuple[Piece, ...]:
    """`tokens` in chunks of `per_chunk`, the last one smaller where they do not divide; the first `reasoning` tokens
    are reasoning, and no chunk has both kinds."""
    thought = min(reasoning, tokens)
    return (
        *(Piece(at, min(per_chunk, thought - at), True) for at in range(0, thought, per_chunk)),
        *(Piece(at, min(per_chunk, tokens - at)) for at in range(thought, tokens, per_chunk)),
    )


def offsets(chunks: int, *, ttft_s: float, itl_s: float, noise: Callable[[], float] | None = None) -> list[float]:
    """Seconds from the start of a request to each of its chunks, never falling.

    Without noise chunk i is at `ttft_s + i * itl_s`, each from the start, so that nothing adds up. With noise the TTFT
    and each gap are multiplied by a draw of its own.
    """
    if noise is None:
        return [ttft_s + number * itl_s for number in range(chunks)]
    at = ttft_s * noise()
    due = [at]
    for _ in range(chunks - 1):
        at += itl_s * noise()
        due.append(at)
    return due


def lognormal(deviation: float, random: Random) -> Callable[[], float] | None:
    """Draws of mean 1 and standard deviation `deviation`; None where there is no noise.

    Lognormal, so that no draw is negative: sigma² = ln(1 + deviation²), mu = -sigma² / 2.
    """
    if deviation == 0:
        return None
    variance = math.log1p(deviation * deviation)
    sigma = math.sqrt(variance)
    return lambda: random.lognormvariate(-variance / 2, sigma)


def word_tokens(words: int, *, tokens_per_word: float, template_tokens: int) -> int:
    """Prompt tokens of a text of so many words."""
    return round(words * tokens_per_word) + template_tokens
