"""The one that leads: in a master or a local runner, each start of a load by Locust is one `Run`."""

import logging
from pathlib import Path
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import WorkerRunner

from loramux_bench.run_dir import RunDir
from loramux_bench.runner.orders import REPORT
from loramux_bench.runner.run import Run
from loramux_bench.scenario import Scenario

logger = logging.getLogger(__name__)


class Conductor:
    """`results` is where directories are made; `run`, if given, is the directory of the one run there will be."""

    def __init__(self, scenario: Scenario, *, results: Path, run: Path | None) -> None:
        self._scenario = scenario
        self._results = results
        self._given = run
        self._run: Run | None = None

    def attach(self, environment: Environment) -> None:
        """Call once, when Locust has made its runner. Nothing in a worker."""
        if isinstance(environment.runner, WorkerRunner):
            return
        _fill_in(environment, self._scenario)
        environment.runner.register_message(REPORT, self._report)
        environment.events.test_start.add_listener(self._begin)
        environment.events.test_stop.add_listener(self._stopped)
        environment.events.quitting.add_listener(lambda **_: self._quitting())

    def _begin(self, environment: Environment, **_: Any) -> None:
        directory = RunDir(self._given) if self._given else RunDir.create(self._results, self._scenario.name)
        logger.info("Results go to %s", directory.path)
        self._run = Run(self._scenario, directory, environment, writes_report=self._given is None)
        self._run.begin()

    def _report(self, *, msg: Any, **_: Any) -> None:
        if self._run is not None:
            self._run.report(msg.data)

    def _stopped(self, environment: Environment, **_: Any) -> None:
        """Whoever stopped the load: Locust does it by itself when it believes that all workers are lost, and would then
        wait for ever."""
        self._end()
        options = environment.parsed_options
        if options is not None and options.headless:
            gevent.spawn(environment.runner.quit)

    def _end(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.end()

    def _quitting(self) -> None:
        if self._run is not None:
            self._run.interrupt()
            self._end()


def _fill_in(environment: Environment, scenario: Scenario) -> None:
    """Users, and how long they may take to end, where the command line does not say."""
    load = scenario.load
    options = environment.parsed_options
    if options is not None and options.num_users is None:
        users = load.users if load.shape == "closed" else load.arrivals.max_in_flight
        options.num_users = max(users, len(scenario.targets))
    if options is not None and options.spawn_rate is None:
        options.spawn_rate = options.num_users  # at once: a ramp is the session's, to the millisecond
    if not environment.stop_timeout:
        environment.stop_timeout = load.drain_s
