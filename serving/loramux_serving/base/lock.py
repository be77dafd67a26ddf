"""One at a time makes a checkpoint ready."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

Progress = Callable[[str, float], None]
"""Hears the phase, and how much is done, from 0 to 1."""


@contextmanager
def locked(path: Path, tell: Progress) -> Iterator[IO[bytes]]:
    """Holds the file `path`, which is made where it is not there, against other threads and processes; waits for them.
    The lock ends with this process and all to whom it handed the file. Raises `OSError`."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting for another process to make it", 0.0)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
