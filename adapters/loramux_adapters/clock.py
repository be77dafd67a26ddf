"""The system's clock."""

import time


class SystemClock:
    """`ports.Clock` over the operating system."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
