"""What is told of an adapter's canary. Pure: a view in, facts to print out."""

from collections.abc import Mapping
from typing import Any

from loramux_serving.cli.units import ago

View = Mapping[str, Any]


def facts(view: View, now_s: float) -> list[tuple[str, str]]:
    """Its rule, what it did so far, and how the last one ended; what there is none of is left out."""
    told: list[tuple[str, str]] = []
    canary = view["canary"]
    if canary is not None and canary["rule"] is not None:
        told.append(("rule", rule(canary["rule"])))
    if canary is not None and canary["figures"] is not None:
        told.append(("so far", figures(canary["figures"])))
    if view["canary_end"] is not None:
        told.append(("last canary", end(view["canary_end"], now_s)))
    return told


def rule(view: View) -> str:
    limits = [
        text.format(value)
        for name, text in (
            ("max_error_rate", "at most {:.3g} of them fail"),
            ("max_p95_s", "p95 at most {:g} s"),
            ("max_p95_ratio", "p95 at most {:g} times the live version's"),
            ("promote_after_s", "live after {:g} s"),
        )
        if (value := view[name]) is not None
    ]
    return f"{', '.join(limits)}; over {view['window_s']:g} s, of {view['min_requests']} requests or more"


def figures(view: View) -> str:
    canary = _side(view["requests"], view["errors"], view["p95_s"])
    return f"{canary}; live: {_side(view['live_requests'], view['live_errors'], view['live_p95_s'])}"


def _side(requests: int, errors: int, p95_s: float | None) -> str:
    return f"{requests} requests, {errors} failed" + ("" if p95_s is None else f", p95 {p95_s:.3g} s")


def end(view: View, now_s: float) -> str:
    what = "became live" if view["promoted"] else "ended"
    decided = "" if view["figures"] is None else f" ({figures(view['figures'])})"
    return f"version {view['version']} {what} {ago(view['at'], now_s)}: {view['reason']}{decided}"
