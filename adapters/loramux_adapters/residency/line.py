"""Who is next to take a place in a replica's host memory."""

import asyncio
from bisect import insort
from itertools import count

from loramux_adapters.model import Tier
from loramux_adapters.tiers import Want, WantReason


class Ticket:
    """One that stands in line. `passes`: it leaves the line rather than wait."""

    __slots__ = ("_called", "passes", "want")

    def __init__(self, want: Want, *, passes: bool) -> None:
        self.want = want
        self.passes = passes
        self._called = asyncio.Event()

    async def called(self, timeout_s: float) -> None:
        """Until this one is the first, or `timeout_s` have passed."""
        self._called.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._called.wait()
        except TimeoutError:
            pass

    def call(self) -> None:
        self._called.set()


class Line:
    """The most urgent first, and those equally urgent in the order in which they came; each adapter once. One event
    loop."""

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []
        self._by_name: dict[str, Ticket] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, engine_name: str) -> bool:
        return engine_name in self._by_name

    @property
    def first(self) -> Ticket | None:
        return self._tickets[0] if self._tickets else None

    def join(self, engine_name: str, reason: WantReason, *, passes: bool) -> Ticket:
        ticket = Ticket(self._want(engine_name, reason), passes=passes)
        self._by_name[engine_name] = ticket
        insort(self._tickets, ticket, key=_urgency)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        self._tickets.remove(ticket)
        del self._by_name[ticket.want.engine_name]
        self._call_first()

    def hurry(self, engine_name: str, reason: WantReason) -> None:
        """Somebody waits for it, and may stand further ahead than whoever began. No effect where it is not in line."""
        ticket = self._by_name.get(engine_name)
        if ticket is None:
            return
        ticket.passes = False
        want = self._want(engine_name, reason)
        if want.urgency < ticket.want.urgency:
            self._tickets.remove(ticket)
            ticket.want = want
            insort(self._tickets, ticket, key=_urgency)
            self._call_first()

    def _want(self, engine_name: str, reason: WantReason) -> Want:
        return Want(engine_name, Tier.CPU, reason, next(self._numbers))

    def _call_first(self) -> None:
        if self._tickets:
            self._tickets[0].call()


def _urgency(ticket: Ticket) -> tuple[int, int]:
    return ticket.want.urgency
