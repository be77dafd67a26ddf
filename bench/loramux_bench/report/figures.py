"""Numbers as text, for people: thousands parted by commas, as many digits as mean something."""


def plain(value: float) -> str:
    """Three significant digits, or all before the point."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 0.01:
        return f"{value:.3g}"
    return f"{value:.2g}" if abs(value) >= 1e-4 else f"{value:.1e}"


def milliseconds(seconds: float) -> str:
    """Without the unit; two digits after the point below 100 ms."""
    ms = seconds * 1000
    return f"{ms:,.{2 if abs(ms) < 99.995 else 1 if abs(ms) < 999.95 else 0}f}"


def rate(value: float) -> str:
    """Of requests or tokens a second; without the unit."""
    return f"{value:,.{2 if abs(value) < 9.995 else 1 if abs(value) < 999.95 else 0}f}"


def percent(share: float) -> str:
    """With the sign. What is more than nothing is never shown as 0 %, nor what is less than all as 100 %."""
    value = 100 * share
    if 0 < value < 0.01:
        return "<0.01 %"
    if 99.99 < value < 100:
        return ">99.99 %"
    return f"{value:.{2 if 0 < value < 10 or 99 < value < 100 else 0 if value in (0, 100) else 1}f} %"


def duration(seconds: float) -> str:
    """Such as `0.42 s`, `38.1 s`, `4 min 05 s`, `2 h 03 min`."""
    if seconds < 60:
        return f"{seconds:.{2 if seconds < 10 else 1}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def money(value: float) -> str:
    """Without the currency."""
    return f"{value:,.2f}" if value >= 1 else plain(value)
