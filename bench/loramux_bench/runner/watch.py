"""How this process is while it makes load: a generator that is short of time measures itself, not the endpoint."""

import time

import gevent
import psutil

from loramux_bench.run_dir import Generator

_TICK_S = 0.01


class Watch:
    """Samples CPU and the lateness of timers between two calls of `sample`."""

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._process = psutil.Process()
        self._late_s = 0.0
        self._process.cpu_percent()
        psutil.cpu_percent()
        self._greenlet = gevent.spawn(self._tick)

    def sample(self, *, users: int, in_flight: int) -> Generator:
        late_s, self._late_s = self._late_s, 0.0
        return Generator(
            worker=self._worker,
            users=users,
            in_flight=in_flight,
            cpu=self._process.cpu_percent() / 100,
            machine_cpu=psutil.cpu_percent() / 100,
            loop_lag_s=round(late_s, 6),
        )

    def stop(self) -> None:
        self._greenlet.kill()

    def _tick(self) -> None:
        while True:
            before = time.perf_counter()
            gevent.sleep(_TICK_S)
            self._late_s = max(self._late_s, time.perf_counter() - before - _TICK_S)
