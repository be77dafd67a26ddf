"""Lengths in tokens."""

import random

from loramux_bench.scenario import Normal


def draw(normal: Normal, rng: random.Random) -> int:
    """At least 1: drawn, cut to whole tokens towards 0, and drawn anew until positive, as LLMPerf's
    `sample_random_positive_int` (src/llmperf/utils.py). The mean is therefore half a token below the normal's."""
    while (length := int(rng.gauss(normal.mean, normal.stddev))) <= 0:
        pass
    return length
