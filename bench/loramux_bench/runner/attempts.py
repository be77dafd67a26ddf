"""One request of the load, from its turn to its record: the attempts, and what is made of them."""

from collections.abc import Callable
from dataclasses import dataclass

from loramux_bench.apis.port import Api, Ask, Trace
from loramux_bench.load.plan import Shot
from loramux_bench.record import RequestRecord
from loramux_bench.runner.clock import RunClock
from loramux_bench.scenario import NotReady, Target


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends requests to one target."""

    target: Target
    clock: RunClock
    not_ready: NotReady
    worker: int
    pause: Callable[[float], bool]
    """Sleeps so many seconds; True if the run ends meanwhile."""
    count: Callable[[str], int] | None = None
    """The model's tokenizer, where there is one."""

    def send(self, shot: Shot, api: Api, ask: Ask, record: Callable[[RequestRecord], None]) -> None:
        """Tries until the endpoint is ready, as far as the scenario allows. `record` is called exactly once, also when
        the greenlet is killed meanwhile."""
        first_sent_at: float | None = None
        attempts = 0
        trace = Trace()
        cut = True
        try:
            while True:
                trace = Trace()
                attempts += 1
                api.ask(ask, trace)
                first_sent_at = trace.sent_at if first_sent_at is None else first_sent_at
                if not (trace.not_ready and self._may_wait(first_sent_at, trace)):
                    break
                if self.pause(trace.retry_after_s or self.not_ready.interval_s):
                    break
            cut = False
        finally:
            if trace.sent_at:
                record(self._record(shot, ask, trace, attempts, first_sent_at or trace.sent_at, cut))

    def _may_wait(self, first_sent_at: float, trace: Trace) -> bool:
        waited_s = (trace.end_at or trace.sent_at) - first_sent_at
        return self.not_ready.retry and waited_s < self.not_ready.timeout_s

    def _record(self, shot: Shot, ask: Ask, trace: Trace, attempts: int, first: float, cut: bool) -> RequestRecord:
        text = "".join(trace.text)
        offset = self.clock.offset_s
        return RequestRecord(
            index=shot.index,
            target=self.target.name,
            api=self.target.api,
            adapter=shot.adapter,
            tenant=shot.tenant,
            worker=self.worker,
            warmup=shot.warmup,
            scheduled_s=None if shot.due_s is None else round(shot.due_s, 6),
            sent_s=offset(trace.sent_at),
            first_token_s=None if trace.first_token_at is None else offset(trace.first_token_at),
            end_s=self._end_s(trace),
            not_ready_s=round(trace.sent_at - first, 6),
            attempts=attempts,
            gaps_s=tuple(round(gap, 6) for gap in trace.gaps_s),
            chunks=trace.chunks,
            prompt_tokens=trace.prompt_tokens,
            prompt_tokens_wanted=shot.input_tokens,
            prompt_tokens_local=None if cut else self._counted(ask.prompt),
            output_tokens=trace.output_tokens,
            output_tokens_wanted=shot.output_tokens,
            output_tokens_local=None if cut else self._counted(text),
            status=trace.status,
            error=trace.error,
            message=trace.message,
            finish_reason=trace.finish_reason,
            cut=cut,
            request_id=trace.request_id,
            version=trace.version,
            replica=trace.replica,
        )

    def _end_s(self, trace: Trace) -> float:
        return self.clock.offset_s(trace.end_at) if trace.end_at is not None else round(self.clock.now_s(), 6)

    def _counted(self, text: str) -> int | None:
        return None if self.count is None else self.count(text)
