"""What makes two adapters the same: the digest of their canonical content."""

import hashlib
import json
from pathlib import Path

from loramux_adapters.artifacts.filesystem import CHUNK_BYTES
from loramux_adapters.errors import ConfigInvalid

_PREFIX = b"loramux-artifact-v1\n"


def digest_of(config: Path, weights: Path) -> str:
    """The sha256, 64 hex digits, of the prefix above, the config as JSON with sorted keys and no spaces, a newline,
    and the weights' bytes. Raises `ConfigInvalid` where the config is no JSON, and `OSError`."""
    digest = hashlib.sha256(_PREFIX)
    digest.update(_canonical(config.read_bytes()))
    digest.update(b"\n")
    with weights.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _canonical(text: bytes) -> bytes:
    try:
        return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid("The adapter's config is not valid JSON.") from error
