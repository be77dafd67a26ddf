"""A secret that is kept in a file of `home`, for its owner only."""

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

import structlog

from loramux_adapters.artifacts.filesystem import sync
from loramux_adapters.errors import SettingsInvalid, StorageFailed
from loramux_serving.auth.api_keys import new_secret

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES = 4096


class SecretFile:
    """`noun` names the secret in messages, which never have it; `variable` is where it can be given instead."""

    def __init__(self, path: Path, noun: str, variable: str) -> None:
        self.path = path
        self._noun = noun
        self._variable = variable

    def read(self) -> str | None:
        """The secret, or None where there is no file. A file that others may read is closed to them, with a warning.
        Raises `SettingsInvalid` where the secret can not be used and `StorageFailed` where it can not be read."""
        try:
            with self.path.open("rb") as file:
                self._close_to_others(file.fileno())
                text = file.read(_MAX_BYTES).decode("ascii", "replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageFailed(f"The {self._noun} {self.path} can not be read: {error.strerror}.") from error
        return usable(text.strip(), self._noun, str(self.path))

    def make(self, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> tuple[str, bool]:
        """A new secret, mode 0600, whole and durable on return. False: another process has made the file at the same
        time; both get the one secret that won. Raises `StorageFailed`."""
        secret = new_secret(random_bytes)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = self._create(secret)
            if not made:
                secret = self.path.read_text("ascii").strip()
        except OSError as error:
            raise StorageFailed(
                f"The {self._noun} {self.path} can not be written: {error.strerror}. "
                f"Set {self._variable} to do without the file."
            ) from error
        return secret, made

    def _create(self, secret: str) -> bool:
        """False where the file exists. It is written elsewhere and linked to its name, since a file made under its own
        name with O_EXCL could be read by another process, or survive a crash, while it is still empty."""
        draft = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secret + "\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, self.path)
            except FileExistsError:
                return False
            sync(self.path.parent)
            return True
        finally:
            draft.unlink()

    def _close_to_others(self, descriptor: int) -> None:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if not mode & _OTHERS:
            return
        log = structlog.get_logger(__name__)
        try:
            os.fchmod(descriptor, mode & ~_OTHERS)
        except OSError as error:
            # A mounted secret is read-only: then its mode is for whoever mounted it to set.
            reason = error.strerror
            log.warning(f"{self._noun} is open to other users", path=str(self.path), mode=oct(mode), error=reason)
        else:
            log.warning(f"{self._noun} was open to other users; closed", path=str(self.path), mode=oct(mode))


def usable(secret: str, noun: str, origin: str) -> str:
    """Raises `SettingsInvalid` where the secret could not travel in a header, or is no secret at all."""
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise SettingsInvalid(f"The {noun} in {origin} must be printable ASCII without spaces, and not empty.")
    return secret
