"""A terminal that commands draw on until somebody presses `q`, and that is left as it was found."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_QUIT = frozenset(b"qQ\x03\x04")


class Keyboard:
    """Standard input, key by key where it is a terminal."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def quits_within(self, wait_s: float) -> bool:
        """Wait that long, or until `q` is pressed, which is True."""
        deadline = time.monotonic() + wait_s
        while (left := deadline - time.monotonic()) > 0:
            if self._fd is None:
                time.sleep(left)
            elif select.select([self._fd], [], [], left)[0]:
                keys = os.read(self._fd, 64)
                if not keys or _QUIT & set(keys):
                    return True
        return False


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """For the length of the block, without echo. SIGTERM and SIGHUP are a `KeyboardInterrupt` in it, so that what was
    changed is put back."""
    fd = sys.stdin.fileno() if sys.stdin.isatty() else None
    saved = None if fd is None else termios.tcgetattr(fd)
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        if fd is not None:
            tty.setcbreak(fd)
        yield Keyboard(fd)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if fd is not None and saved is not None:
            termios.tcsetattr(fd, termios.TCSADRAIN, saved)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
