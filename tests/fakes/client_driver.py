"""A process in which clients of the bench run below gevent, as they do in Locust. Orders and what came of them are JSON
lines on stdin and stdout, so that the process of the tests itself is never patched."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402
from urllib.request import Request, urlopen  # noqa: E402

import gevent  # noqa: E402
import msgspec  # noqa: E402

from loramux_bench.apis.connect import connect  # noqa: E402
from loramux_bench.apis.port import Api, Ask, Trace  # noqa: E402
from loramux_bench.errors import BenchError  # noqa: E402
from loramux_bench.scenario import Target  # noqa: E402

LIMIT_S = 20.0


def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    """`asks` one after the other by one client. With `go`: that URL is called as soon as the first chunk was seen. With
    `kill`: the greenlet of the first is killed then. With `others_timeout_s`: the caller has a time-out of its own."""
    try:
        api = connect(Target(**order["target"]), url=order["url"], key=order.get("key", ""), timeout_s=LIMIT_S)
    except BenchError as error:
        return {"raised": type(error).__name__, "says": str(error), "traces": []}
    traces = []
    passed_through = False
    for number, ask in enumerate(order["asks"]):
        trace = Trace()
        with gevent.Timeout(LIMIT_S):
            passed_through |= _ask(
                api,
                Ask(**ask),
                trace,
                order.get("go", ""),
                kill=bool(order.get("kill")) and number == 0,
                others_timeout_s=order.get("others_timeout_s"),
            )
        traces.append(msgspec.to_builtins(trace))
    api.close()
    return {"raised": "", "says": "", "traces": traces, "passed_through": passed_through}


def _ask(api: Api, ask: Ask, trace: Trace, go: str, *, kill: bool, others_timeout_s: float | None) -> bool:
    """Whether the caller's time-out came through the client."""

    def within_time() -> bool:
        with gevent.Timeout(others_timeout_s, False):
            api.ask(ask, trace)
            return False
        return True

    asking = gevent.spawn(within_time)
    if go or kill:
        while not trace.chunks and not asking.ready():
            gevent.sleep(0.002)
    if kill:
        asking.kill()
    elif go:
        with urlopen(Request(go, method="POST", data=b"")):
            pass
    return asking.get() is True


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line))), flush=True)
