"""The bootstrap admin key: given from outside, kept in `home`/admin.key, or made on the first start.

Exposure rule: the gateway listens on an address other than loopback only where somebody already holds a key, which
is so when the registry has a key that is not revoked, when `LORAMUX_ADMIN_KEY` is given, or when admin.key was there
before this start. A file that this start would make itself does not count: nobody has read it yet. So the rule is
checked before the file is made, and a start that was refused leaves none behind.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loramux_adapters.errors import SettingsInvalid
from loramux_serving.auth.api_keys import digest
from loramux_serving.auth.secret_file import SecretFile, usable
from loramux_serving.settings import Settings

FILE_NAME = "admin.key"

_NOUN = "admin key"
_VARIABLE = "LORAMUX_ADMIN_KEY"


@dataclass(frozen=True, slots=True)
class AdminKey:
    """`path` is None where the secret was given from outside; `made` is true where this start made it."""

    secret: str = field(repr=False)
    path: Path | None
    made: bool = False

    @property
    def digest(self) -> str:
        return digest(self.secret)


def open_admin_key(
    settings: Settings, *, has_keys: bool, random_bytes: Callable[[int], bytes] = secrets.token_bytes
) -> AdminKey:
    """The admin key of this gateway, made if there is none and the exposure rule allows it. `has_keys`: the registry
    has a key that is not revoked. Raises `SettingsInvalid` (exposure, unusable key) and `StorageFailed`."""
    found = find_admin_key(settings)
    check_exposure(settings, has_keys=has_keys or found is not None)
    return found or make_admin_key(settings.home, random_bytes)


def check_exposure(settings: Settings, *, has_keys: bool) -> None:
    """Raises `SettingsInvalid` where the gateway would listen beyond loopback and nobody holds a key. Serving
    inference without keys is no exemption: the admin interface would still stand open to the first who reads a
    new admin.key. Pure."""
    if settings.loopback or has_keys:
        return
    raise SettingsInvalid(
        f"To listen on {settings.host}, which others can reach, a key must exist: set {_VARIABLE}, or start "
        f"once on 127.0.0.1, which makes {settings.home / FILE_NAME}."
    )


def find_admin_key(settings: Settings) -> AdminKey | None:
    """The key that was given, which is never written anywhere, else the kept one, else None. A kept file that others
    may read is closed to them, with a warning. Raises `SettingsInvalid` where the key can not be used and
    `StorageFailed` where the file can not be read."""
    if settings.admin_key is not None:
        return AdminKey(usable(settings.admin_key.get_secret_value(), _NOUN, _VARIABLE), path=None)
    file = _file(settings.home)
    secret = file.read()
    return None if secret is None else AdminKey(secret, path=file.path)


def make_admin_key(home: Path, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> AdminKey:
    """A new secret in `home`/admin.key, mode 0600, whole and durable on return. Where another process makes the file
    at the same time, both get the one secret that won. Raises `StorageFailed`."""
    file = _file(home)
    secret, made = file.make(random_bytes)
    return AdminKey(secret, path=file.path, made=made)


def _file(home: Path) -> SecretFile:
    return SecretFile(home / FILE_NAME, _NOUN, _VARIABLE)
