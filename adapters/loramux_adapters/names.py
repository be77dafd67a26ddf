"""Which names an adapter or an alias may have."""

import re

from loramux_adapters.errors import NameInvalid

MAX_LENGTH = 128
_ALLOWED = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_LENGTH - 1}}}")


def check_adapter_name(name: str) -> None:
    """Raises `NameInvalid` unless `name` is 1 to 128 ASCII letters, digits, `.`, `_` and `-`, starting with a letter
    or digit. `@` and `/` are thereby free for `adapter@version` and for paths."""
    if not _ALLOWED.fullmatch(name):
        raise NameInvalid(
            f"The name {shown(name)} is not allowed: use 1 to {MAX_LENGTH} ASCII letters, digits, '.', '_' and '-', "
            "starting with a letter or digit."
        )


def shown(text: str, limit: int = 120) -> str:
    """`text` quoted for a message: printable ASCII only, at most about `limit` characters, whatever a caller sent."""
    quoted = ascii(text if len(text) <= limit else text[:limit])
    return quoted if len(text) <= limit else f"{quoted}…"
