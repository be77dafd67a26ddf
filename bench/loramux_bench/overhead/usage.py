"""Processor time and memory of processes, from /proc."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from resource import RUSAGE_CHILDREN, getrusage

import msgspec
import psutil

_NOT_BUSY = ("idle", "iowait", "guest", "guest_nice")


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Of one measurement: shares of one core, while it ran."""

    side: float
    """Of what is measured; of `direct`, nothing."""
    engine: float
    generator: float
    others: float
    """Of the sides that wait for their turn."""
    foreign: float = 0.0
    """Of the tested core, by what is no part of the measurement, the kernel's own work and a host's included."""
    memory_bytes: int
    """Of what is measured, resident, at the end."""


class Watch:
    """What one measurement used. `used` once the block is over."""

    def __init__(
        self, side: Sequence[int], engine: Sequence[int], others: Sequence[int], tested: Iterable[int] = ()
    ) -> None:
        """Processes of each; `tested` are the cores that the side has for itself, none where it has none."""
        self._groups: Mapping[str, Sequence[int]] = {"side": side, "engine": engine, "others": others}
        self._tested = tuple(tested)
        self.used = Usage(side=0.0, engine=0.0, generator=0.0, others=0.0, memory_bytes=0)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """The generator's is that of the children that ended meanwhile."""
        began, before, children = time.perf_counter(), self._busy(), _children_s()
        core = _core_s(self._tested)
        yield
        length_s = time.perf_counter() - began
        shares = {name: (busy - before[name]) / length_s for name, busy in self._busy().items()}
        self.used = Usage(
            **shares,
            foreign=max(0.0, (_core_s(self._tested) - core) / length_s - shares["side"] - shares["others"])
            if self._tested
            else 0.0,
            generator=(_children_s() - children) / length_s,
            memory_bytes=sum(memory_bytes(pid) for pid in self._groups["side"]),
        )

    def _busy(self) -> dict[str, float]:
        return {name: sum(busy_s(pid) for pid in pids) for name, pids in self._groups.items()}


def busy_s(pid: int) -> float:
    """Processor time of a process so far; 0 where it has ended."""
    with suppress(psutil.NoSuchProcess):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0


def memory_bytes(pid: int) -> int:
    """Resident memory; 0 where it has ended."""
    with suppress(psutil.NoSuchProcess):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def _core_s(cpus: Sequence[int]) -> float:
    """Time in which these cores were not idle, so far. What guests took is in the other figures already."""
    every = psutil.cpu_times(percpu=True)
    return float(
        sum(seconds for cpu in cpus for name, seconds in every[cpu]._asdict().items() if name not in _NOT_BUSY)
    )


def _children_s() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
