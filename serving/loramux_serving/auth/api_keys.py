"""Callers' keys: how a secret looks, its digest, and a new key. Pure: time and randomness are passed in."""

import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from hashlib import sha256

from loramux_adapters.model import ApiKey, Role
from loramux_adapters.ports import Clock
from loramux_serving.auth.access_keys import new_access_key_id, secret_access_key

PREFIX = "lmx_"
"""Begins every secret that loramux makes, so that scanners and log filters can tell one."""


def new_secret(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """`lmx_` and 32 random bytes in URL-safe base64 without padding: 47 characters."""
    return PREFIX + urlsafe_b64encode(random_bytes(32)).rstrip(b"=").decode("ascii")


def digest(secret: str) -> str:
    """sha256 of the secret, 64 hex digits: all that is kept of it. Never raises. No salt and no slow hash: a secret
    of 256 random bits can not be guessed from its digest."""
    return sha256(secret.encode("utf-8", "replace")).hexdigest()


def issue(
    name: str,
    role: Role,
    clock: Clock,
    *,
    adapters: Iterable[str] = (),
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    master: str | None = None,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which is shown once and not kept. `adapters` are shell-style patterns of names
    (none: all). A limit of None takes the gateway's default, 0 means no limit. The id says nothing of the secret.

    With a `master` secret the key is one to sign requests with, and its secret is derived from its access key id."""
    access_key_id = None if master is None else new_access_key_id(random_bytes)
    if master is None or access_key_id is None:
        secret = new_secret(random_bytes)
    else:
        secret = secret_access_key(master, access_key_id)
    key = ApiKey(
        id=f"key_{random_bytes(8).hex()}",
        name=name,
        role=role,
        digest=digest(secret),
        created_at=clock.now(),
        adapters=tuple(adapters),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        access_key_id=access_key_id,
    )
    return key, secret
