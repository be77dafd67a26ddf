"""What a study asks: the same for every side, given by names, counts and a seed alone. Pure."""

import random
from collections.abc import Sequence
from typing import Literal, get_args

from loramux_bench.apis.port import Ask
from loramux_bench.load.popularity import Popularity, popularity
from loramux_bench.load.prompts import Source, Writer
from loramux_bench.load.tokenizers import Calibration
from loramux_bench.scenario import Adapters

Choice = Literal["uniform", "zipf"]

CHOICES: tuple[Choice, ...] = get_args(Choice)


def names_of(count: int) -> tuple[str, ...]:
    """What the adapters of a study are called: the first of them are the same for every count."""
    return tuple(f"study-{number:04d}" for number in range(count))


def choices(names: Sequence[str], count: int, choice: Choice, *, alpha: float, seed: str) -> tuple[str, ...]:
    """Whom each of so many requests asks. With Zipf the k-th name has the weight k to the power of minus alpha."""
    rng = random.Random(f"choices {seed}")
    wanted: Popularity = popularity(Adapters(choice=choice, alpha=alpha), names)
    return tuple(wanted.choose(index, rng) for index in range(count))


def prompts(count: int, tokens: int, *, seed: str) -> tuple[str, ...]:
    """So many texts of about so many tokens, no two of which begin alike: no prefix cache helps the second."""
    rng = random.Random(f"prompts {seed}")
    writer = Writer(Source.load(), Calibration())
    first = rng.randrange(10_000_000)
    return tuple(writer.write(first + index, tokens, rng) for index in range(count))


def asks(models: Sequence[str], texts: Sequence[str], *, max_tokens: int) -> tuple[Ask, ...]:
    """One request for each model and its text: greedy, and of exactly `max_tokens`."""
    return tuple(
        Ask(model=model, prompt=text, max_tokens=max_tokens, ignore_eos=True, temperature=0.0)
        for model, text in zip(models, texts, strict=True)
    )
