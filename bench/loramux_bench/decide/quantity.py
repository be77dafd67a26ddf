"""Figures in sentences."""

import math


def said(value: float, unit: str) -> str:
    """Such as `612 ms`, `1.5 s`, `812 µs`, `120 tokens/s`, `1.2 %`; four digits. `unit`: `s`, `tokens/s`, `requests/s`,
    `tokens` or `share`."""
    if math.isnan(value):
        return "unknown"
    if unit == "share":
        return f"{100 * value:.4g} %"
    if unit != "s":
        return f"{_digits(value)} {unit}"
    if abs(value) >= 1:
        return f"{_digits(value)} s"
    return f"{value * 1e3:.4g} ms" if abs(value) >= 1e-3 or value == 0 else f"{value * 1e6:.4g} µs"


def change(ratio: float) -> str:
    """Such as `+12.1 %` for 1.121."""
    return f"{100 * (ratio - 1):+.1f} %"


def _digits(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
