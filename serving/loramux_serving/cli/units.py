"""Sizes, times and places as people read them. Pure."""

from collections.abc import Mapping
from datetime import datetime

_AGO = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def size(size_bytes: int | None) -> str:
    """`3.5 MiB`; `-` where it is not known."""
    if size_bytes is None:
        return "-"
    value, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def ago(at_s: float | None, now_s: float) -> str:
    """`5 min ago`; `-` for never."""
    if at_s is None:
        return "-"
    passed = int(now_s - at_s)
    for seconds, unit in _AGO:
        if passed >= seconds:
            return f"{passed // seconds} {unit} ago"
    return "now"


def moment(at_s: float | None) -> str:
    """In the local time zone; `-` for never."""
    return "-" if at_s is None else datetime.fromtimestamp(at_s).astimezone().isoformat(sep=" ", timespec="seconds")


def duration(seconds: float | None) -> str:
    """`0.4 ms`, `80 ms`, `1.2 s`, `5 min`; `-` where it is not known."""
    if seconds is None:
        return "-"
    if seconds < 0.01:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def rate(per_s: float | None) -> str:
    """`0`, `0.4`, `12`; `-` where it is not known."""
    if per_s is None:
        return "-"
    return f"{per_s:.0f}" if per_s >= 9.95 or per_s == 0 else f"{per_s:.1f}"


def places(tiers: Mapping[str, str]) -> str:
    """`gpu` where all replicas agree, else `engine-0=gpu engine-1=disk`; `-` without replicas."""
    found = set(tiers.values())
    if len(found) <= 1:
        return next(iter(found), "-")
    return " ".join(f"{replica}={tier}" for replica, tier in tiers.items())


def optional(value: object) -> str:
    return "-" if value is None or value == "" else str(value)
