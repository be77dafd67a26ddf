"""The directory that holds a gateway's state."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loramux_adapters.errors import SettingsInvalid, StorageFailed


@dataclass(frozen=True, slots=True)
class Home:
    """`artifacts` is the disk tier, `uploads` holds what was sent and is not yet in it."""

    path: Path

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def uploads(self) -> Path:
        return self.path / "uploads"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make it, and keep it from a second gateway. Raises `SettingsInvalid`, `StorageFailed`."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageFailed(f"The home {self.path} can not be used: {error.strerror}.") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise SettingsInvalid(
                    f"Another gateway uses {self.path}; stop it, or give this one its own LORAMUX_HOME."
                ) from error
            yield
        finally:
            os.close(lock)
