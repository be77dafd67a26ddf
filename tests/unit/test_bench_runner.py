"""The runner's parts that need no Locust: attempts, the recorder, the split among targets, and trust's arithmetic."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loramux_bench.apis.port import Ask, Trace
from loramux_bench.load.plan import Shot
from loramux_bench.load.split import split
from loramux_bench.record import RequestRecord, encode
from loramux_bench.run_dir import RunDir
from loramux_bench.runner.attempts import Sender
from loramux_bench.runner.clock import RunClock
from loramux_bench.runner.orders import Report, pack_report, unpack_report
from loramux_bench.runner.recorder import Recorder
from loramux_bench.scenario import NotReady, Scenario, Target, parse
from loramux_bench.trust.accuracy import figures

ASK = Ask(model="pirate", prompt="How do I make tea?", max_tokens=4)


class Scripted:
    """An endpoint that answers as it is told, on a clock of its own that a pause moves."""

    def __init__(self, *answers: str, retry_after_s: float | None = None, takes_s: float = 0.1) -> None:
        self.now_s = time.perf_counter()
        self.pauses: list[float] = []
        self._answers = list(answers)
        self._retry_after_s = retry_after_s
        self._takes_s = takes_s

    def open(self) -> None: ...

    def close(self) -> None: ...

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.now_s += seconds
        return False

    def ask(self, ask: Ask, trace: Trace) -> None:
        trace.sent_at = self.now_s
        answer = self._answers.pop(0)
        self.now_s += self._takes_s
        match answer:
            case "ok":
                trace.token("Arr,", self.now_s)
                trace.output_tokens = 1
            case "not ready":
                trace.not_ready = True
                trace.retry_after_s = self._retry_after_s
                trace.fail("not_ready", "The model is starting.")
            case "killed":
                trace.token("Ar", self.now_s)
                raise KeyboardInterrupt
        trace.end_at = self.now_s


def shot(due_s: float | None = None) -> Shot:
    return Shot(
        index=7,
        target="t",
        adapter="pirate",
        tenant="",
        prompt=ASK.prompt,
        input_tokens=5,
        output_tokens=4,
        due_s=due_s,
        warmup=False,
    )


def send(
    api: Scripted,
    rules: NotReady | None = None,
    *,
    due_s: float | None = None,
    pause: Callable[[float], bool] | None = None,
) -> list[RequestRecord]:
    kept: list[RequestRecord] = []
    sender = Sender(
        target=Target(name="t"),
        clock=RunClock(time.time() - (time.perf_counter() - api.now_s)),  # offset 0 is the script's beginning
        not_ready=rules or NotReady(),
        worker=0,
        pause=pause or api.pause,
    )
    sender.send(shot(due_s), api, ASK, kept.append)
    return kept


def test_an_answer_is_one_record() -> None:
    (record,) = send(Scripted("ok"))
    assert record.ok
    assert (record.index, record.adapter, record.attempts) == (7, "pirate", 1)
    assert record.ttft_s == pytest.approx(0.1, abs=1e-4)
    assert record.not_ready_s == 0.0


def test_not_ready_is_tried_again_and_its_time_is_apart() -> None:
    api = Scripted("not ready", "not ready", "ok")
    (record,) = send(api, NotReady(interval_s=2.0), due_s=0.0)
    assert record.ok
    assert record.attempts == 3
    assert api.pauses == [2.0, 2.0]
    assert record.not_ready_s == pytest.approx(4.2, abs=1e-3)
    assert record.ttft_s == pytest.approx(0.1, abs=1e-3), "from when it was due, moved by the wait"


def test_retry_after_goes_before_the_scenario() -> None:
    api = Scripted("not ready", "ok", retry_after_s=7.0)
    send(api)
    assert api.pauses == [7.0]


@pytest.mark.parametrize("rules", [NotReady(retry=False), NotReady(timeout_s=0.0)])
def test_without_patience_not_ready_is_an_error(rules: NotReady) -> None:
    (record,) = send(Scripted("not ready"), rules)
    assert record.error == "not_ready"
    assert record.attempts == 1


def test_patience_ends() -> None:
    (record,) = send(Scripted(*["not ready"] * 9), NotReady(timeout_s=10.0, interval_s=3.0))
    assert record.error == "not_ready"
    assert record.not_ready_s >= 9.0


def test_the_runs_end_ends_the_waiting() -> None:
    (record,) = send(Scripted("not ready"), pause=lambda _: True)
    assert record.error == "not_ready"
    assert not record.cut


def test_what_is_killed_is_recorded_as_cut() -> None:
    api = Scripted("killed")
    kept: list[RequestRecord] = []
    sender = Sender(Target(name="t"), RunClock(time.time()), NotReady(), 0, api.pause)
    with pytest.raises(KeyboardInterrupt):
        sender.send(shot(), api, ASK, kept.append)
    (record,) = kept
    assert record.cut
    assert not record.ok
    assert record.chunks == 1


def test_the_recorder_knows_who_is_done(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (record,) = send(Scripted("ok"))
    with Recorder(run, 2, broken=lambda error: pytest.fail(str(error))) as recorder:
        for worker in (0, 1):
            report = Report(worker=worker, records=[encode(record)], done=True, closed=worker == 1)
            recorder.report(unpack_report(pack_report(report)))
        assert recorder.all_done
        assert not recorder.all_closed
        assert list(run.requests()) == [record, record], "with the operating system when the call returns"
        recorder.forget_workers()
        assert recorder.all_closed


def test_a_disk_that_is_full_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").symlink_to("/dev/full")
    told: list[OSError] = []
    (record,) = send(Scripted("ok"))
    with Recorder(RunDir(tmp_path), 1, told.append) as recorder:
        for _ in range(2):
            recorder.report(Report(worker=0, records=[encode(record)]))
    (error,) = told
    assert error.strerror == "No space left on device"


def scenario(**load: object) -> Scenario:
    targets = [{"name": "a", "weight": 3}, {"name": "b", "weight": 1}]
    return parse({"name": "two", "targets": targets, "load": {"requests": 40, "users": 8, **load}}, "of the test")


def test_targets_share_by_weight() -> None:
    first, second = split(scenario(warmup_requests=4))
    assert [part.targets[0].name for part in (first, second)] == ["a", "b"]
    assert (first.load.requests, second.load.requests) == (30, 10)
    assert (first.load.users, second.load.users) == (6, 2)
    assert (first.load.warmup_requests, second.load.warmup_requests) == (3, 1)


def test_rates_are_shared_too() -> None:
    stages = [{"rate_per_s": 8.0, "to_rate_per_s": 16.0, "duration_s": 5.0}]
    first, second = split(scenario(shape="open", arrivals={"rate_per_s": 4.0, "stages": stages, "max_in_flight": 2}))
    assert (first.load.arrivals.rate_per_s, second.load.arrivals.rate_per_s) == (3.0, 1.0)
    assert (second.load.arrivals.stages[0].rate_per_s, second.load.arrivals.stages[0].to_rate_per_s) == (2.0, 4.0)
    assert second.load.arrivals.max_in_flight == 1, "never none"


def test_trust_tells_a_bench_that_is_wrong() -> None:
    """By hand: two requests, 0.1 s to the first token and 0.02 s between two tokens; the bench reads 5 ms late."""
    log = {
        "requests": [
            {
                "stream": True,
                "cancelled": False,
                "first_chunk_s": 0.1,
                "chunks_s": [0.1, 0.12],
                "ended_s": 0.12,
                "received_at": at,
                "tokens": 2,
            }
            for at in (0.0, 1.0)
        ]
    }

    def record(at_s: float, late_s: float) -> RequestRecord:
        return RequestRecord(
            index=0,
            target="t",
            api="openai-chat",
            adapter="a",
            sent_s=at_s,
            first_token_s=at_s + 0.1 + late_s,
            end_s=at_s + 0.12 + late_s,
            gaps_s=(0.02,),
            chunks=2,
            output_tokens=2,
            prompt_tokens_wanted=1,
            output_tokens_wanted=2,
        )

    true = figures([record(0.0, 0.0), record(1.0, 0.0)], log)
    assert all(figure.holds for figure in true)
    late = {f"{f.name} {f.statistic}".strip(): f for f in figures([record(0.0, 0.005), record(1.0, 0.005)], log)}
    assert not late["TTFT p50"].holds
    assert late["ITL mean"].holds
    assert late["TTFT p50"].off == pytest.approx(0.05)
    assert late["requests/s"].mock == pytest.approx(2 / 1.12)
