"""The system's clock."""

import time


class SystemClock:
    """`ports.Clock` over the operating system."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
