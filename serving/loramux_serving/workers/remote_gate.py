"""The gate of a worker: the control process decides."""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from time import perf_counter

from loramux_adapters.errors import EngineError, LoramuxError
from loramux_adapters.model import Target
from loramux_serving.relay.dialect import ModelName
from loramux_serving.relay.eager import Signal
from loramux_serving.relay.signed_request import Credentials
from loramux_serving.relay.story import Story
from loramux_serving.workers.channel import Channel
from loramux_serving.workers.messages import (
    Again,
    Check,
    Checked,
    EndRequest,
    Enter,
    Entered,
    GiveUp,
    Leave,
    Refused,
    Said,
    Tell,
    error_of,
    fault_of,
)

_LONGEST_NAME = 1024
"""A longer name of a model means nothing, and only its beginning is sent: it may be as long as a body."""

_target = lru_cache(4096)(Target)


class RemoteGate:
    """`relay.ports.Gate`, over a channel to a `Desk`. One event loop. No request is lost with the channel: without one
    a worker ends."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel: Channel[Said] | None = None
        self._calls: dict[int, _Call] = {}
        self._last_call = 0

    def speaks_over(self, channel: Channel[Said]) -> None:
        """To be called before the first request."""
        self._channel = channel

    @property
    def channel(self) -> Channel[Said]:
        assert self._channel is not None, "speaks_over comes first"
        return self._channel

    async def check(self, credentials: Credentials, story: Story) -> None:
        number, call = await self._begin(None)
        self.channel.send(Check(number, credentials))
        try:
            await self._answered(number, call)
        finally:
            self.forget(number)
        answer = call.answer
        assert isinstance(answer, Checked | Refused)
        story.key_id = answer.key_id
        if isinstance(answer, Refused):
            raise error_of(answer.fault)

    async def enter(
        self,
        credentials: Credentials,
        model: ModelName,
        sticky: str | None,
        story: Story,
        end_request: Callable[[], object],
    ) -> "RemotePassage":
        number, call = await self._begin(end_request)
        if isinstance(model, str) and len(model) > _LONGEST_NAME:
            model = f"{model[:_LONGEST_NAME]}…"
        self.channel.send(Enter(number, credentials, model, sticky, story.request_id, story.endpoint))
        await self._answered(number, call)
        answer = call.answer
        refusal = _noted(story, answer)
        if refusal is not None:
            self.forget(number)
            raise refusal
        assert isinstance(answer, Entered)
        return RemotePassage(self, number, call, story, answer.url)

    def enter_now(
        self,
        credentials: Credentials,
        model: ModelName,
        sticky: str | None,
        story: Story,
        end_request: Callable[[], object],
    ) -> None:
        """Nothing is known here."""

    def tell(self, story: Story) -> None:
        self.channel.send(Tell(story.record()))

    def heard(self, message: Said) -> None:
        """For the channel."""
        call = self._calls.get(message.call)
        if call is None:
            return  # who asked has left
        if isinstance(message, EndRequest):
            if call.end_request is not None:
                call.end_request()
        else:
            call.answer = message
            call.signal.set()

    def forget(self, number: int) -> None:
        """For `RemotePassage`."""
        self._calls.pop(number, None)

    async def _begin(self, end_request: Callable[[], object] | None) -> "tuple[int, _Call]":
        if not self.channel.has_room:
            await self.channel.room()
        self._last_call += 1
        call = self._calls[self._last_call] = _Call(Signal(self._loop), end_request)
        return self._last_call, call

    async def _answered(self, number: int, call: "_Call") -> None:
        try:
            await call.signal
        except asyncio.CancelledError:
            self.forget(number)
            self.channel.send(GiveUp(number))
            raise


class RemotePassage:
    """`relay.ports.Passage`, made by `RemoteGate.enter`."""

    __slots__ = ("_call", "_gate", "_number", "_story", "settled", "url")

    def __init__(self, gate: RemoteGate, number: int, call: "_Call", story: Story, url: str) -> None:
        self._gate = gate
        self._number = number
        self._call = call
        self._story = story
        self.url = url
        self.settled = True

    async def settle(self) -> None:
        """It is, always."""

    async def again(self, error: EngineError) -> None:
        call = self._call
        call.signal = Signal(asyncio.get_running_loop())
        self._gate.channel.send(Again(self._number, fault_of(error)))
        await call.signal
        refusal = _noted(self._story, call.answer)
        if refusal is not None:
            raise refusal
        assert isinstance(call.answer, Entered)
        self.url = call.answer.url

    def leave(self) -> None:
        story = self._story
        usage = story.usage
        self._gate.forget(self._number)
        self._gate.channel.send(
            Leave(
                self._number,
                story.status,
                story.outcome,
                story.streamed,
                perf_counter() - story.started_at,
                story.ttft_s,
                usage.prompt if usage else 0,
                usage.completion if usage else 0,
                story.error_code,
            )
        )


class _Call:
    """What is under way for one request."""

    __slots__ = ("answer", "end_request", "signal")

    def __init__(self, signal: Signal, end_request: Callable[[], object] | None) -> None:
        self.signal = signal
        self.end_request = end_request
        self.answer: Checked | Entered | Refused | None = None


def _noted(story: Story, answer: Checked | Entered | Refused | None) -> LoramuxError | None:
    """Note in `story` what the answer to `Enter` or `Again` found out; the error where that is a refusal."""
    assert isinstance(answer, Entered | Refused)
    story.key_id, story.replica, story.queue_s = answer.key_id, answer.replica, answer.queue_s
    if answer.adapter is not None and answer.engine_name is not None:
        story.target = _target(answer.adapter, answer.engine_name, answer.version, answer.digest)
    return error_of(answer.fault) if isinstance(answer, Refused) else None
