"""Where the control process decides for the requests that one worker carries."""

import asyncio
from collections.abc import Coroutine
from time import perf_counter
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars

from loramux_adapters.errors import EngineError, LoramuxError
from loramux_serving.relay.eager import EagerTask
from loramux_serving.relay.local_gate import LocalGate, LocalPassage, settled
from loramux_serving.relay.ports import Recorder
from loramux_serving.relay.signed_request import Credentials
from loramux_serving.relay.story import Story
from loramux_serving.relay.token_usage import Usage
from loramux_serving.workers.channel import Channel
from loramux_serving.workers.messages import (
    Again,
    Asked,
    Check,
    Checked,
    Draining,
    EndRequest,
    Enter,
    Entered,
    GiveUp,
    Leave,
    Refused,
    Serving,
    Tell,
    error_of,
    fault_of,
)

_log = structlog.get_logger(__name__)


class Desk:
    """The other end of a `RemoteGate`. One event loop. Whatever becomes of the worker, what its requests held is given
    back: a request that need not wait is answered within the callback that brought it."""

    def __init__(self, gate: LocalGate, recorder: Recorder) -> None:
        """`recorder` gets the requests that never had a passage; the gate has its own."""
        self.serving = asyncio.Event()
        """The worker takes connections."""
        self.draining = asyncio.Event()
        """It takes no more."""
        self.lost = asyncio.Event()
        """It is gone."""
        self._gate = gate
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        self._channel: Channel[Asked] | None = None
        self._visits: dict[int, _Visit] = {}

    def speaks_over(self, channel: Channel[Asked]) -> None:
        """To be called before the first message."""
        self._channel = channel

    @property
    def requests(self) -> int:
        """Those of the worker that wait or run."""
        return len(self._visits)

    def heard(self, message: Asked) -> None:
        """For the channel."""
        match message:
            case Enter():
                self._begin(message)
            case Leave():
                self._leave(message)
            case Tell():
                self._recorder.record(message.record)
            case Check():
                visit = self._visits[message.call] = _Visit(self, message.call, Story("", "", 0.0), counts=False)
                visit.run(self._check(visit, message.credentials), self._loop)
            case GiveUp():
                self._give_up(message.call)
            case Again():
                self._again(message)
            case Serving():
                self.serving.set()
            case Draining():
                self.draining.set()

    def gone(self) -> None:
        """For the channel: the worker holds nothing any more. Its requests are recorded as those that were left by
        their callers."""
        self.lost.set()
        for visit in list(self._visits.values()):
            visit.lost = True
            visit.cancel()

    def ended(self, visit: "_Visit") -> None:
        """For `_Visit`: nothing is under way for it."""
        passage, story, leave = visit.passage, visit.story, visit.leave
        if leave is not None and passage is not None:
            story.status, story.outcome, story.error_code = leave.status, leave.outcome, leave.error_code
            story.streamed, story.ttft_s = leave.streamed, leave.ttft_s
            story.started_at = perf_counter() - leave.duration_s
            if leave.prompt_tokens or leave.completion_tokens:
                story.usage = Usage(leave.prompt_tokens, leave.completion_tokens)
            passage.leave()
        elif visit.lost:
            story.cancelled()
            if passage is not None:
                passage.leave()
            elif visit.counts:
                self._gate.tell(story)
        elif visit.given_up:
            if passage is not None:
                passage.give_back()  # the worker, which had left, tells of it
        elif passage is not None:
            return
        del self._visits[visit.call]

    def say(self, message: Any) -> None:
        assert self._channel is not None, "speaks_over comes first"
        self._channel.send(message)

    def _begin(self, asked: Enter) -> None:
        """A request that need not wait is answered here; any other gets a task."""
        story = Story(asked.request_id, asked.endpoint, perf_counter())
        visit = self._visits[asked.call] = _Visit(self, asked.call, story)
        try:
            passage = self._gate.enter_now(asked.credentials, asked.model, asked.sticky, story, visit.end_request)
        except LoramuxError as error:
            self._refuse(visit, error)
            self.ended(visit)
            return
        if passage is not None and passage.settled:
            visit.passage = passage
            self._admit(visit, passage)
        else:
            visit.run(self._enter(visit, asked, passage), self._loop)

    async def _check(self, visit: "_Visit", credentials: Credentials) -> None:
        try:
            await self._gate.check(credentials, visit.story)
        except LoramuxError as error:
            self._refuse(visit, error)
        except Exception:
            self._fail(visit)
        else:
            self.say(Checked(visit.call, visit.story.key_id))

    async def _enter(self, visit: "_Visit", asked: Enter, begun: LocalPassage | None) -> None:
        """`begun`: what was had at once, which is not settled."""
        bind_contextvars(request_id=asked.request_id)
        gate, story = self._gate, visit.story
        try:
            if begun is None:
                passage = await gate.enter(asked.credentials, asked.model, asked.sticky, story, visit.end_request)
            else:
                passage = await settled(begun)
            visit.passage = passage
        except LoramuxError as error:
            self._refuse(visit, error)
        except Exception:
            self._fail(visit)
        else:
            self._admit(visit, passage)

    def _again(self, asked: Again) -> None:
        visit = self._visits[asked.call]
        assert visit.passage is not None
        visit.run(self._try_again(visit, visit.passage, asked), self._loop)

    async def _try_again(self, visit: "_Visit", passage: LocalPassage, asked: Again) -> None:
        bind_contextvars(request_id=visit.story.request_id)
        error = error_of(asked.fault)
        assert isinstance(error, EngineError)
        try:
            await passage.again(error)
        except LoramuxError as refusal:
            self._refuse(visit, refusal)
        except Exception:
            self._fail(visit)
        else:
            self._admit(visit, passage)

    def _leave(self, message: Leave) -> None:
        visit = self._visits[message.call]
        visit.leave = message
        visit.cancel()

    def _give_up(self, call: int) -> None:
        visit = self._visits.get(call)
        if visit is not None:  # else the refusal and this crossed
            visit.given_up = True
            visit.cancel()

    def _admit(self, visit: "_Visit", passage: LocalPassage) -> None:
        story = visit.story
        target = story.target
        assert target is not None
        self.say(
            Entered(
                visit.call,
                story.key_id,
                target.adapter,
                target.engine_name,
                target.version,
                target.digest,
                story.replica or "",
                passage.url,
                story.queue_s,
            )
        )

    def _refuse(self, visit: "_Visit", error: LoramuxError) -> None:
        story = visit.story
        target = story.target
        self.say(
            Refused(
                visit.call,
                fault_of(error),
                story.key_id,
                target.adapter if target else None,
                target.engine_name if target else None,
                target.version if target else None,
                target.digest if target else None,
                story.replica,
                story.queue_s,
            )
        )

    def _fail(self, visit: "_Visit") -> None:
        """The outermost frame of a request's decision: whatever happens, its worker gets an answer."""
        _log.exception("request failed unexpectedly", request_id=visit.story.request_id)
        self._refuse(visit, LoramuxError("The gateway failed. Its log says why."))


class _Visit:
    """One request of the worker, as the control process knows it."""

    __slots__ = ("_desk", "_task", "call", "counts", "given_up", "leave", "lost", "passage", "story")

    def __init__(self, desk: Desk, call: int, story: Story, *, counts: bool = True) -> None:
        """`counts`: it is one to be recorded."""
        self.call = call
        self.story = story
        self.counts = counts
        self.passage: LocalPassage | None = None
        self.leave: Leave | None = None
        self.given_up = False
        self.lost = False
        self._desk = desk
        self._task: EagerTask | None = None

    def run(self, work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
        self._task = EagerTask(work, loop, self._done)
        self._task.start()

    def cancel(self) -> None:
        """What is under way for it, if anything is; `Desk.ended` follows, at once or soon."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._desk.ended(self)

    def end_request(self) -> None:
        self._desk.say(EndRequest(self.call))

    def _done(self, _task: EagerTask) -> None:
        self._task = None
        self._desk.ended(self)
