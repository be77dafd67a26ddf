"""Files out of the kernel's page cache, so that the next reader takes them from the disk (Linux)."""

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from loramux_bench.errors import ResultsError


def drop(files: Iterable[Path]) -> None:
    """What was written reaches the disk first, as the kernel keeps pages that it still has to write. Raises
    `ResultsError`."""
    for path in files:
        try:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise ResultsError(f"The pages of {path} can not be dropped: {error.strerror}.") from error


def cached_share(path: Path) -> float:
    """How much of the file's pages the page cache holds, from 0 to 1, by mincore(2); 0 of an empty file. Not always
    right just after a drop: the kernel may keep pages that somebody has mapped."""
    with path.open("rb") as file:
        if not (size_bytes := os.fstat(file.fileno()).st_size):
            return 0.0
        with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as pages:
            count = -(-size_bytes // mmap.PAGESIZE)
            held = (ctypes.c_ubyte * count)()
            # MAP_PRIVATE and not ACCESS_READ: ctypes takes the address of writable buffers only.
            first = ctypes.c_char.from_buffer(pages)
            try:
                if ctypes.CDLL(None, use_errno=True).mincore(ctypes.byref(first), ctypes.c_size_t(size_bytes), held):
                    raise OSError(ctypes.get_errno(), "mincore")
            finally:
                del first  # else the mapping can not be closed
            return sum(page & 1 for page in held) / count
