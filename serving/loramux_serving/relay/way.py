"""One request on its way: what is known of it, what it holds, and who runs it.

A request whose engine could be asked at once has no task: it waits as a `Way`, and a short answer is passed on within
the callback that brought it. Whatever else happens makes a task of it, which goes on from where the way is.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec

from loramux_adapters.errors import LoramuxError
from loramux_serving.relay.dialect import InferenceRequest
from loramux_serving.relay.eager import EagerTask
from loramux_serving.relay.engine_connection import EngineConnection
from loramux_serving.relay.exchange import Exchange
from loramux_serving.relay.ports import Passage
from loramux_serving.relay.signed_request import Credentials
from loramux_serving.relay.story import Story
from loramux_serving.relay.upstream import EnginePool


class Carrier(Protocol):
    """Who knows what is to be done."""

    def finish(self, way: "Way") -> bool:
        """Pass on the answer, of which something has come, or wait on. False: that is for a task."""
        ...

    def carry(self, way: "Way") -> Coroutine[Any, Any, None]:
        """The task's work."""
        ...


class Way(msgspec.Struct, eq=False):
    """`body` is there from when it is whole until it is read to be `request`; `passage` from when the gate let it in;
    `reply` while an engine of `pool` has it, with nothing waited for. `refusal` is what the gate said at once. `tasks`
    holds what is to be cancelled where the server must end."""

    carrier: Carrier
    exchange: Exchange
    story: Story
    loop: asyncio.AbstractEventLoop
    tasks: set[Any]
    body: bytes | None = None
    credentials: Credentials = None
    request: InferenceRequest | None = None
    passage: Passage | None = None
    refusal: LoramuxError | None = None
    reply: EngineConnection | None = None
    pool: EnginePool | None = None

    def set(self) -> None:
        """For the connection, in the place of `eager.Signal`: more of the answer is there, or none will come."""
        if not self.carrier.finish(self):
            self.go_on()

    def cancel(self, msg: Any = None) -> object:
        return self.go_on().cancel(msg)

    def go_on(self) -> EagerTask:
        """From now on in a task."""
        reply, tasks = self.reply, self.tasks
        if reply is not None:
            reply.waiter = None
            tasks.discard(self)
        task = EagerTask(self.exchange.run(self.carrier.carry(self)), self.loop, tasks.discard)
        self.exchange.waiting_task = task
        tasks.add(task)
        task.start()
        return task
