"""The header that carries a key."""

from loramux_bench.errors import ScenarioError


def bearer(key: str) -> dict[str, str]:
    """None without a key. Raises `ScenarioError`, which does not show it, for one that no header can hold."""
    if not (key.isascii() and key.isprintable()):
        raise ScenarioError("The key holds characters that no header may have, such as a line's end.")
    return {"Authorization": f"Bearer {key}"} if key else {}
