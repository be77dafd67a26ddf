"""One run: prepares, tells the load processes to begin, records what they report, knows when it is over, and puts
everything back."""

import logging
import os
import threading
import time
from contextlib import ExitStack

import gevent
from locust.env import Environment
from locust.runners import MasterRunner
from msgspec.structs import replace

from loramux_bench.admin.churn import Churner
from loramux_bench.admin.endpoint import Endpoint
from loramux_bench.admin.prepare import Prepared, prepare
from loramux_bench.admin.restoration import Restoration
from loramux_bench.admin.scrape import Scraper
from loramux_bench.errors import BenchError, NothingMeasured
from loramux_bench.load.prompts import Source
from loramux_bench.load.tokenizers import fit
from loramux_bench.results.write import write_results
from loramux_bench.run_dir import RunDir, RunInfo
from loramux_bench.runner.clock import RunClock
from loramux_bench.runner.orders import BEGIN, FINISH, Orders, pack, unpack_report
from loramux_bench.runner.recorder import Recorder
from loramux_bench.runner.surroundings import surroundings
from loramux_bench.scenario import Scenario

logger = logging.getLogger(__name__)

_LEAD_S = 0.5
"""From the orders to offset 0: what messages need to arrive, and users to be spawned."""
_LOOK_EVERY_S = 0.1
_SAMPLE_WORDS = (10, 150)
"""Lengths of the texts that an endpoint is asked to count."""
_LAST_REPORTS_S = 10.0
"""What load processes may take to end their users and send their last reports."""
_DIED = "A load process died, or did not answer any more: what it had not reported is missing."


def _marked(scenario: Scenario, directory: RunDir) -> Scenario:
    if scenario.prompts.mark:
        return scenario
    prompts = scenario.prompts.model_copy(update={"mark": directory.path.name})
    return scenario.model_copy(update={"prompts": prompts})


class Run:
    """`begin`, then `report` as often as load processes have something to tell, then `end`."""

    def __init__(self, scenario: Scenario, directory: RunDir, environment: Environment, *, writes_report: bool) -> None:
        self._scenario = scenario = _marked(scenario, directory)
        self._directory = directory
        self._environment = environment
        self._writes_report = writes_report
        self._info = RunInfo(name=scenario.name, scenario=scenario.model_dump(mode="json"), environment=surroundings())
        self._restoration = Restoration(self._info.left_undone.append)
        self._resources = ExitStack()
        self._recorder: Recorder | None = None
        self._preparing: gevent.Greenlet | None = None
        self._stop_background = threading.Event()
        self._background: list[gevent.Greenlet] = []
        self._parent = 0 if writes_report else os.getppid()
        """Of `launch`, without which nobody reads the results; 0 where a person started Locust."""
        self._finishing = False
        self._ended = False

    def begin(self) -> None:
        """Prepare, and send the orders. A failure ends the run, with a sentence in `run.json`."""
        self._preparing = gevent.getcurrent()
        began = time.monotonic()
        try:
            targets = self._scenario.targets
            endpoints = [Endpoint.of(target, first=not number) for number, target in enumerate(targets)]
            self._tell("Looking at the endpoint")
            source = Source.load(self._scenario.prompts.text)
            prepared = prepare(
                self._scenario,
                endpoints,
                self._restoration,
                tell=self._tell,
                sleep=gevent.sleep,
                now=time.monotonic,
                samples=[source.sample(words) for words in _SAMPLE_WORDS],
            )
            self._info.prepare_s = round(time.monotonic() - began - prepared.ready_wait_s, 3)
            self._order(prepared, endpoints)
        except BenchError as error:
            self._fail(str(error), error.exit_status)
        finally:
            self._preparing = None

    def _order(self, prepared: Prepared, endpoints: list[Endpoint]) -> None:
        runner, info = self._environment.runner, self._info
        nodes = [client.id for client in runner.clients.ready] if isinstance(runner, MasterRunner) else [None]
        info.started_at = time.time() + _LEAD_S
        info.workers = len(nodes)
        info.ready_wait_s = round(prepared.ready_wait_s, 3)
        info.adapters = list(prepared.adapters)
        info.base = prepared.base
        if prepared.observations and not self._scenario.prompts.tokenizer:
            info.prompt_overhead_tokens = round(fit(prepared.observations).overhead_tokens, 2)
        info.tokenizer = self._scenario.prompts.tokenizer or ("endpoint" if prepared.observations else "")
        info.environment["endpoint"] = dict(prepared.facts)
        self._tell("Load")
        self._recorder = self._resources.enter_context(Recorder(self._directory, len(nodes), self._full))
        self._look_on(prepared, self._recorder)
        orders = Orders(
            scenario=self._scenario.model_dump_json().encode(),
            started_at=info.started_at,
            worker=0,
            workers=len(nodes),
            adapters=info.adapters,
            base=prepared.base,
            urls={endpoint.target.name: endpoint.url for endpoint in endpoints},
            keys={endpoint.target.name: endpoint.key for endpoint in endpoints},
            tenants=dict(prepared.tenants),
            observations=list(prepared.observations or ()),
        )
        for number, node in enumerate(nodes):
            runner.send_message(BEGIN, pack(replace(orders, worker=number)), client_id=node)
        gevent.spawn(self._watch, self._recorder)

    def _look_on(self, prepared: Prepared, recorder: Recorder) -> None:
        """Scrape and churn while the load runs."""
        control = prepared.control
        if control is None:
            return
        now = RunClock(self._info.started_at).now_s
        scrape = self._scenario.scrape
        if scrape.metrics or scrape.admin:
            scraper = Scraper(control, scrape, admin=prepared.admin, keep=recorder.sample, now=now)
            self._background.append(gevent.spawn(scraper.run, self._stop_background))
            self._resources.callback(lambda: self._info.notes.extend(scraper.notes))
        if self._scenario.churn.any:
            churner = Churner(
                control,
                self._scenario.churn,
                adapters=prepared.updatable,
                own=prepared.provisioned,
                restoration=self._restoration,
                keep=recorder.churn,
                now=now,
            )
            self._background.append(gevent.spawn(churner.run, self._stop_background))
            self._resources.callback(lambda: self._info.notes.extend(churner.notes))

    def report(self, content: bytes) -> None:
        """A load process has something to tell."""
        report = unpack_report(content)
        if self._recorder is not None:
            self._recorder.report(report)
        if report.failure:
            self._fail(report.failure, 2)

    def finish(self, drain_s: float) -> None:
        """Let load processes end, and wait until they have: what is under way may take so long."""
        self._finishing = True
        if self._recorder is None:
            return
        runner = self._environment.runner
        for node in [client.id for client in runner.clients.all] if isinstance(runner, MasterRunner) else [None]:
            runner.send_message(FINISH, drain_s, client_id=node)
        deadline = time.monotonic() + drain_s + _LAST_REPORTS_S
        while not self._recorder.all_closed and not self._ended and time.monotonic() < deadline:
            gevent.sleep(_LOOK_EVERY_S)

    def interrupt(self) -> None:
        """Somebody wants it to end now: nothing is waited for."""
        if self._preparing is not None:
            self._preparing.kill()
        self._info.outcome = "interrupted"
        self.finish(0.0)

    def end(self) -> None:
        """The load has ended: write down how, and put everything back. Nothing the second time."""
        if self._ended:
            return
        self._ended = True
        info = self._info
        if self._recorder is not None and not self._recorder.all_closed:
            self._lost()
        if info.outcome == "running":
            info.outcome = "done"
        if info.started_at:
            info.ended_s = round(time.time() - info.started_at, 3)
        self._stop_background.set()
        self._tell("Putting things back")
        gevent.joinall(self._background)
        with self._restoration:
            self._resources.close()
        self._tell("")
        if self._writes_report and info.started_at:
            self._write_report()

    def _write_report(self) -> None:
        try:
            write_results(self._directory)
        except NothingMeasured as nothing:
            logger.warning("%s", nothing)
        logger.info("Report: %s", self._directory.report_path)

    def _tell(self, sentence: str, done: int = 0, total: int = 0) -> None:
        self._info.status = f"{sentence} ({done} of {total})" if total else sentence
        logger.info("%s", self._info.status)
        try:
            self._directory.write_info(self._info)
        except OSError as error:  # a full disk must not keep things from being put back
            logger.error("%s can not be written: %s", self._directory.info_path, error.strerror)

    def _full(self, error: OSError) -> None:
        self._fail(f"Results can not be written any more to {self._directory.path}: {error.strerror}.", 2)

    def _fail(self, sentence: str, exit_status: int) -> None:
        logger.error("%s", sentence)
        self._info.outcome = "failed"
        self._info.failure = sentence
        self._environment.process_exit_code = exit_status
        gevent.spawn(self._over, 0.0)

    def _watch(self, recorder: Recorder) -> None:
        """Ends the load when its work or its time is over."""
        load = self._scenario.load
        began_s: float | None = None
        while not self._ended and not self._finishing:
            gevent.sleep(_LOOK_EVERY_S)
            now_s = time.time() - self._info.started_at
            if began_s is None and now_s >= 0 and recorder.received >= load.warmup_requests:
                began_s = now_s
            if self._parent and os.getppid() != self._parent:
                self._info.outcome = "interrupted"  # whoever started this is gone
                self._over(0.0)
                return
            if self._alone():
                self._lost()
                recorder.forget_workers()
            over = load.duration_s is not None and began_s is not None and now_s - began_s >= load.duration_s
            if over or recorder.all_done:
                self._over(load.drain_s)

    def _lost(self) -> None:
        self._info.notes.append(_DIED)
        if self._info.outcome == "running":
            self._info.outcome = "interrupted"

    def _alone(self) -> bool:
        """Whether a load process that began is gone."""
        runner = self._environment.runner
        if not isinstance(runner, MasterRunner):
            return False
        return len(runner.clients.all) - len(runner.clients.missing) < self._info.workers

    def _over(self, drain_s: float) -> None:
        """End it in the way that Locust was started. Runs in a greenlet that Locust's own end does not kill."""
        if self._finishing:
            return
        self.finish(drain_s)
        options, runner = self._environment.parsed_options, self._environment.runner
        if options is not None and options.headless:
            runner.quit()
        else:
            runner.stop()
