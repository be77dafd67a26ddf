"""What one Locust process has of a run: the session of its users, begun and ended by Locust's events and messages.

A local runner and workers have sessions; a master has none. A local runner's messages come back to itself, so there is
one way for both.
"""

from collections.abc import Callable
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import MasterRunner

from loramux_bench.errors import BenchError
from loramux_bench.record import RequestRecord
from loramux_bench.runner.orders import BEGIN, FINISH, REPORT, Report, pack_report, unpack
from loramux_bench.runner.session import Session
from loramux_bench.runner.token_events import TokenEvents

_NAMES_APART = 20
"""With more adapters than that, Locust's rows are by target."""


class Stage:
    """Users reach their session through it."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self._rows_by_adapter = True

    def attach(self, environment: Environment) -> None:
        """Listen to what this process is told. Call once, when Locust has made its runner."""
        if isinstance(environment.runner, MasterRunner):
            return
        events = TokenEvents(environment, self._row)
        environment.runner.register_message(BEGIN, self._begin(environment, events.fire))
        environment.runner.register_message(FINISH, self._finish)
        environment.events.test_stopping.add_listener(lambda **_: self._stop())
        environment.events.test_stop.add_listener(lambda **_: self._end())
        environment.events.quitting.add_listener(_quitting)

    def _row(self, record: RequestRecord) -> str:
        return f"{record.target}/{record.adapter}" if self._rows_by_adapter else record.target

    def _begin(self, environment: Environment, seen: Callable[[RequestRecord], None]) -> Callable[..., None]:
        def begin(*, msg: Any, **_: Any) -> None:
            self._end()
            orders = unpack(msg.data)
            self._rows_by_adapter = len(orders.adapters) <= _NAMES_APART
            runner = environment.runner
            try:
                self.session = Session(orders, report=lambda data: runner.send_message(REPORT, data), seen=seen)
            except BenchError as error:
                failure = Report(worker=orders.worker, records=[], done=True, closed=True, failure=str(error))
                runner.send_message(REPORT, pack_report(failure))

        return begin

    def _finish(self, *, environment: Environment, msg: Any, **_: Any) -> None:
        drain_s = float(msg.data)

        def finish() -> None:
            if self.session is not None:
                self.session.stop()
                self.session.drain(drain_s)
            environment.stop_timeout = 0.0
            environment.runner.stop()

        gevent.spawn(finish)

    def _stop(self) -> None:
        if self.session is not None:
            self.session.stop()

    def _end(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.close()


def _quitting(environment: Environment, **_: Any) -> None:
    """A worker that is interrupted by itself: its users end now, and their records still go out."""
    environment.stop_timeout = 0.0
    environment.runner.stop()
