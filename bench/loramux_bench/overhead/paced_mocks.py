"""Mock engines of known timing which say what they did, and the sides before them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from loramux_bench.admin.client import AdminClient
from loramux_bench.errors import EndpointError, NotInstalled
from loramux_bench.mock.process import MockProcess
from loramux_bench.overhead.cores import started_on
from loramux_bench.overhead.part import AGAINST, Options
from loramux_bench.overhead.places import gateway, peer
from loramux_bench.overhead.side import DIRECT, LORAMUX, PEERS, Side
from loramux_bench.overhead.workplace import BASE, Workplace


@contextmanager
def paced_mocks(place: Workplace, count: int, *, ttft_s: float, itl_s: float) -> Iterator[list[MockProcess]]:
    """So many mocks of the bench (`mock/`), on the load's core. Each answers for the base, and any model's name that
    is not an adapter's."""
    with ExitStack() as stack:
        with started_on(place.cores.load):
            mocks = [
                stack.enter_context(MockProcess(ttft=ttft_s, itl=itl_s, base=BASE, adapters=0)) for _ in range(count)
            ]
        yield mocks


@contextmanager
def before(
    place: Workplace, side: str, mocks: Sequence[MockProcess], *, name: str, settings: dict[str, str] | None = None
) -> Iterator[Side]:
    """`side`, of `side.SIDES`, before these mocks; `direct` is the first of them. `name` is its log's; `settings` are
    loramux's, without their prefix. Raises what `places` raises."""
    urls = ",".join(mock.url for mock in mocks)
    if side == DIRECT:
        yield Side(DIRECT, mocks[0].url, {}, BASE, (mocks[0].pid,))
    elif side == LORAMUX:
        with gateway(place, urls, adapters=0, name=name, env=settings) as found:
            yield replace(found, name=LORAMUX)
    else:
        with peer(place, next(one for one in PEERS if one == side), urls) as found:
            yield found


def compared(place: Workplace, options: Options) -> list[str]:
    """Of the sides that were asked for, loramux and the one that it is held against."""
    return [name for name in (LORAMUX, AGAINST) if name in options.sides and name not in place.left_out]


@contextmanager
def sparing(place: Workplace, name: str) -> Iterator[None]:
    """Another gateway that does not start, or refuses connections while it should not, is left out; of loramux,
    `EndpointError` or `NotInstalled` is raised."""
    try:
        yield
    except (EndpointError, NotInstalled, OSError) as error:
        if name == LORAMUX:
            if isinstance(error, OSError):
                raise EndpointError(f"{name} could not be connected to: {error!r}.") from error
            raise
        place.left_out[name] = str(error)
        place.tell(f"{name} is left out: {error}")


def engines_ready(place: Workplace, side: Side, name: str) -> Callable[[], Awaitable[int]]:
    """How many engines loramux gives requests to, by its own word. `name` is as for `before`."""
    key = (place.study.scratch / f"{name}-home" / "admin.key").read_text("utf-8").strip()

    def count() -> int:
        with AdminClient(side.url, key) as admin:
            return sum(replica.state == "ready" for replica in admin.replicas())

    async def counted() -> int:
        return await asyncio.to_thread(count)

    return counted
