"""The largest number that holds. Pure but for what it asks."""

from collections.abc import Callable


def largest(held: Callable[[int], bool], *, least: int, most: int, precision: float = 1.1) -> int:
    """Of `least` to `most`, by doubling and then by halves, until the next one that does not hold is at most
    `precision` times as large; 0 where `least` does not hold. Where a number holds, smaller ones are taken to hold."""
    good, bad = 0, None
    at = least
    while bad is None and at <= most:
        if held(at):
            good = at
            if at == most:
                return good
            at = min(2 * at, most)
        else:
            bad = at
    while good and bad is not None and bad > good * precision and bad - good > 1:
        at = (good + bad) // 2
        if held(at):
            good = at
        else:
            bad = at
    return good
