"""Options that hold several values with commas between them."""

import math
from collections.abc import Sequence
from typing import TypeVar

from loramux_bench.errors import ScenarioError

T = TypeVar("T", bound=str)


def words(text: str, known: Sequence[T], option: str) -> tuple[T, ...]:
    """Some of `known`, in the order given, none twice. Raises `ScenarioError`."""
    by_name = {str(word): word for word in known}
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if strange := [name for name in names if name not in by_name]:
        raise ScenarioError(f"{option} does not know {strange[0]!r}: there are {', '.join(known)}.")
    if not names:
        raise ScenarioError(f"{option} needs one at least of {', '.join(known)}.")
    return tuple(by_name[name] for name in names)


def rates(text: str, option: str) -> tuple[float, ...]:
    """Numbers above 0, ascending, none twice. Raises `ScenarioError`."""
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(math.isfinite(rate) and rate > 0 for rate in found):
        raise ScenarioError(f"{option} takes numbers above 0 with commas between them, such as 1,4,16; not {text!r}.")
    return tuple(found)
