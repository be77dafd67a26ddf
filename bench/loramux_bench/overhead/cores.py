"""Which core does what: what is measured has one for itself, the engine and the load have another."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Cpus = frozenset[int]


@dataclass(frozen=True, slots=True)
class Cores:
    """`tested` and `load` are the same where there is one core only, or where cores can not be chosen."""

    tested: Cpus
    load: Cpus

    @classmethod
    def here(cls) -> "Cores":
        """The first that this process may use is for what is measured, the second for the rest."""
        usable = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        if len(usable) < 2:
            return cls(frozenset(usable), frozenset(usable))
        return cls(frozenset(usable[:1]), frozenset(usable[1:2]))

    @property
    def apart(self) -> bool:
        return not self.tested & self.load and bool(self.tested)

    @property
    def both(self) -> Cpus:
        return self.tested | self.load


@contextmanager
def started_on(cpus: Cpus) -> Iterator[None]:
    """Processes that this thread starts in the block run on these cores only; so does this thread, until the block
    ends. Nothing changes where there are none."""
    if not cpus or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
