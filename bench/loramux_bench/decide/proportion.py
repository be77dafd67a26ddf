"""Intervals for shares, such as of errors: right also near 0."""

import math
from statistics import NormalDist


def share_interval(hits: int, of: int, confidence: float) -> tuple[float, float]:
    """Two-sided, for `of` of 1 or more. Wilson 1927, the score interval."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, whole = hits / of, of + z * z
    middle = (hits + z * z / 2) / whole
    half = z * math.sqrt(of * share * (1 - share) + z * z / 4) / whole
    return max(0.0, middle - half), min(1.0, middle + half)


def difference_interval(hits_a: int, of_a: int, hits_b: int, of_b: int, confidence: float) -> tuple[float, float]:
    """Of B's share less A's, each of 1 or more. Newcombe 1998, method 10: the hybrid score interval."""
    share_a, share_b = hits_a / of_a, hits_b / of_b
    (low_a, high_a), (low_b, high_b) = (
        share_interval(hits_a, of_a, confidence),
        share_interval(hits_b, of_b, confidence),
    )
    difference = share_b - share_a
    return (
        difference - math.hypot(share_b - low_b, high_a - share_a),
        difference + math.hypot(high_b - share_b, share_a - low_a),
    )
