"""The bootstrap admin key: given from outside, kept in `home`/admin.key, or made on the first start.

Exposure rule: the gateway listens on an address other than loopback only where somebody already holds a key, which
is so when the registry has a key that is not revoked, when `LORAMUX_ADMIN_KEY` is given, or when admin.key was there
before this start. A file that this start would make itself does not count: nobody has read it yet. So the rule is
checked before the file is made, and a start that was refused leaves none behind.
"""

import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from loramux_adapters.artifacts.filesystem import sync
from loramux_adapters.errors import SettingsInvalid, StorageFailed
from loramux_serving.auth.api_keys import digest, new_secret
from loramux_serving.settings import Settings

FILE_NAME = "admin.key"

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


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
        f"To listen on {settings.host}, which others can reach, a key must exist: set LORAMUX_ADMIN_KEY, or start "
        f"once on 127.0.0.1, which makes {settings.home / FILE_NAME}."
    )


def find_admin_key(settings: Settings) -> AdminKey | None:
    """The key that was given, which is never written anywhere, else the kept one, else None. A kept file that others
    may read is closed to them, with a warning. Raises `SettingsInvalid` where the key can not be used and
    `StorageFailed` where the file can not be read."""
    if settings.admin_key is not None:
        return AdminKey(_usable(settings.admin_key.get_secret_value(), "LORAMUX_ADMIN_KEY"), path=None)
    path = settings.home / FILE_NAME
    try:
        with path.open("rb") as file:
            _close_to_others(path, file.fileno())
            text = file.read(4096).decode("ascii", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageFailed(f"The admin key {path} can not be read: {error.strerror}.") from error
    return AdminKey(_usable(text.strip(), str(path)), path=path)


def make_admin_key(home: Path, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> AdminKey:
    """A new secret in `home`/admin.key, mode 0600, whole and durable on return. Where another process makes the file
    at the same time, both get the one secret that won. Raises `StorageFailed`."""
    path = home / FILE_NAME
    secret = new_secret(random_bytes)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = _create(path, secret)
        if not made:
            secret = path.read_text("ascii").strip()
    except OSError as error:
        raise StorageFailed(
            f"The admin key {path} can not be written: {error.strerror}. Set LORAMUX_ADMIN_KEY to do without the file."
        ) from error
    return AdminKey(secret, path=path, made=made)


def _create(path: Path, secret: str) -> bool:
    """False where the file exists. It is written elsewhere and linked to its name, since a file made under its own
    name with O_EXCL could be read by another process, or survive a crash, while it is still empty."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        sync(path.parent)
        return True
    finally:
        draft.unlink()


def _close_to_others(path: Path, descriptor: int) -> None:
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if not mode & _OTHERS:
        return
    log = structlog.get_logger(__name__)
    try:
        os.fchmod(descriptor, mode & ~_OTHERS)
    except OSError as error:
        # A mounted secret is read-only: then its mode is for whoever mounted it to set.
        log.warning("admin key is open to other users", path=str(path), mode=oct(mode), error=error.strerror)
    else:
        log.warning("admin key was open to other users; closed", path=str(path), mode=oct(mode))


def _usable(secret: str, origin: str) -> str:
    """Raises `SettingsInvalid` where the secret could not travel in a header, or is no secret at all."""
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise SettingsInvalid(f"The admin key in {origin} must be printable ASCII without spaces, and not empty.")
    return secret
