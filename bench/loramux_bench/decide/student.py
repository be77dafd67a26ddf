"""Student's t distribution, as far as intervals need it."""

import math


def coverage(t: float, degrees: int) -> float:
    """The probability of -t to t, for t of 0 or more and whole degrees of freedom of 1 or more. Exact: Abramowitz &
    Stegun, formulas 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    if degrees == 1:
        return 2 * angle / math.pi
    start = 1 if degrees % 2 else 0
    term = cosine if start else 1.0
    total = term
    for step in range(start + 2, degrees - 1, 2):
        term *= cosine * cosine * (step - 1) / step
        total += term
    return 2 * (angle + sine * total) / math.pi if start else sine * total


def quantile(confidence: float, degrees: int) -> float:
    """The t of which -t to t holds this share, from 0 to less than 1; right to 9 digits or more."""
    low, high = 0.0, 1.0
    while coverage(high, degrees) < confidence:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if coverage(middle, degrees) < confidence else (low, middle)
    return high
