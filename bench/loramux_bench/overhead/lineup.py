"""The sides of this run, started once and kept until its end."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import cast

import httpx

from loramux_bench.errors import EndpointError, NothingMeasured, NotInstalled
from loramux_bench.overhead import places
from loramux_bench.overhead.side import DIRECT, LORAMUX, PEERS, Peer, Side
from loramux_bench.overhead.workplace import Workplace
from loramux_bench.overhead.wrk import PATH, body

UNBOUNDED = {
    "ADMISSION__MAX_CONCURRENT": "16384",
    "ADMISSION__MAX_CONCURRENT_PER_ADAPTER": "16384",
    "RELAY__UPSTREAM_CONNECTIONS": "16384",
}
"""Settings of the gateway: what protects an engine is counted, and lets thousands of streams through, as other gateways
do by themselves."""

_ANSWER_S = 60.0


def lineup(place: Workplace, names: Sequence[str]) -> list[Side]:
    """`direct` first, whether it was named or not: the others are in front of it. A gateway that is not installed, does
    not start or does not answer is told of and left out. Raises what `places` raises for the mock and for loramux."""
    direct = place.running.get(DIRECT) or _take(place, DIRECT)
    found = [direct]
    for name in names:
        if name == DIRECT or name in place.left_out:
            continue
        side = place.running.get(name)
        if side is None:
            place.tell(f"{name}: starting")
            try:
                side = _take(place, name)
            except (EndpointError, NotInstalled) as error:
                if name not in PEERS:
                    raise
                place.left_out[name] = str(error)
                place.tell(f"{name} is left out: {error}")
                continue
        found.append(side)
    if len(found) == 1 and DIRECT not in names:
        raise NothingMeasured("None of the sides can be measured.")
    return found


def _take(place: Workplace, name: str) -> Side:
    with ExitStack() as trial:
        side = trial.enter_context(_start(place, name))
        _ask(side)
        place.kept.enter_context(trial.pop_all())
    place.running[name] = side
    return side


def _start(place: Workplace, name: str) -> AbstractContextManager[Side]:
    if name == DIRECT:
        return places.mock(place)
    engine = place.running[DIRECT]
    if name == LORAMUX:
        return places.gateway(place, engine.url, env=UNBOUNDED)
    return places.peer(place, cast(Peer, name), engine.url)


def _ask(side: Side) -> None:
    """One request, as the load will be. Raises `EndpointError` where it is not answered as vLLM does."""
    try:
        answer = httpx.post(
            side.url + PATH,
            content=body(side.model),
            headers={"Content-Type": "application/json", **side.headers},
            timeout=_ANSWER_S,
            trust_env=False,
        )
        said = answer.json() if answer.is_success else {}
    except (httpx.HTTPError, ValueError) as error:
        raise EndpointError(f"{side.name} did not answer a request: {error!r}.") from error
    if "choices" not in said:
        raise EndpointError(f"{side.name} answered a request with {answer.status_code}: {answer.text[:300]}")
