"""How much an adapter may cost before anything is known of it."""

from dataclasses import dataclass

from loramux_adapters.errors import ArchiveTooLarge, SourceTooLarge

RATIO_FREE_BYTES = 1 << 20
"""The ratio is not looked at below this."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """`max_archive_bytes` bounds an archive, upload or object; `max_unpacked_bytes` and `max_files` what comes out
    of it; `max_ratio` the bytes that come out for one that goes in, once past 1 MiB."""

    max_archive_bytes: int
    max_unpacked_bytes: int
    max_files: int
    max_ratio: float

    def check_archive(self, size_bytes: int) -> None:
        """Raises `SourceTooLarge`."""
        if size_bytes > self.max_archive_bytes:
            raise SourceTooLarge(
                f"The source has {size_bytes} bytes or more, over the {self.max_archive_bytes} that are allowed.",
                details={"max_bytes": self.max_archive_bytes},
            )


class Meter:
    """Counts what comes out of one archive of `archive_bytes`, or, with None, of a source that is no archive."""

    def __init__(self, limits: ArchiveLimits, archive_bytes: int | None = None) -> None:
        self._limits = limits
        self._max_bytes: float = limits.max_unpacked_bytes
        self._bomb_bytes = (
            float("inf") if archive_bytes is None else max(RATIO_FREE_BYTES, archive_bytes * limits.max_ratio)
        )
        self._bytes = 0
        self._files = 0

    @property
    def total_bytes(self) -> int:
        return self._bytes

    def file(self) -> None:
        """Count a member. Raises `ArchiveTooLarge`."""
        self._files += 1
        if self._files > self._limits.max_files:
            raise ArchiveTooLarge(f"The source holds more than the {self._limits.max_files} files that are allowed.")

    def unpacked(self, size_bytes: int) -> None:
        """Count bytes, before they are written. Raises `ArchiveTooLarge`."""
        self._bytes += size_bytes
        if self._bytes > self._max_bytes:
            raise ArchiveTooLarge(
                f"The source unpacks to more than the {self._limits.max_unpacked_bytes} bytes that are allowed."
            )
        if self._bytes > self._bomb_bytes:
            raise ArchiveTooLarge(
                f"The archive unpacks to more than {self._limits.max_ratio:g} times its size; pack the adapter again."
            )
