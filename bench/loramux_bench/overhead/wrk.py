"""wrk, as a child: requests as fast as they are answered, over connections that are kept.

https://github.com/wg/wrk
"""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from loramux_bench.errors import EndpointError, NotInstalled, ResultsError
from loramux_bench.overhead.cores import Cpus, started_on
from loramux_bench.overhead.side import Side

PATH = "/v1/chat/completions"
PROMPT = "Say in one sentence what a gateway is."
MAX_TOKENS = 8

_MARK = "loramux-bench:"
_LONGER_S = 30.0
_TIMEOUT_S = 10


class Shot(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of wrk saw. `errors` are connections and requests that failed, and answers that were no success;
    latencies are of all answers."""

    requests: int
    seconds: float
    errors: int
    p50_s: float
    p99_s: float
    max_s: float

    @property
    def rps(self) -> float:
        return (self.requests - self.errors) / self.seconds if self.seconds else 0.0


def rps_of(shot: Shot) -> float:
    return shot.rps


class Wrk:
    """One thread on `cpus`. Raises `NotInstalled` where there is none."""

    def __init__(self, scratch: Path, cpus: Cpus) -> None:
        found = shutil.which("wrk")
        if found is None:
            raise NotInstalled("wrk is not here, which makes the load: on Debian, `apt-get install wrk`.")
        self._program = found
        self._scratch = scratch
        self._cpus = cpus

    def __call__(
        self, side: Side, *, connections: int, seconds: float, models: Sequence[str] = (), bodies: Sequence[str] = ()
    ) -> Shot:
        """wrk counts whole seconds. `models` are asked for in turn; without any, the side's; or `bodies` are sent in
        turn. Raises `EndpointError` where wrk fails, or nothing is answered."""
        path = self._scratch / "requests.lua"
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            path.write_text(script(side, bodies or [body(model) for model in models or (side.model,)]), "utf-8")
        except OSError as error:
            raise ResultsError(f"{path} can not be written: {error.strerror}.") from error
        length_s = max(1, round(seconds))
        argv = [self._program, "-t", "1", "-c", str(connections), "-d", f"{length_s}s"]
        argv += ["--timeout", f"{_TIMEOUT_S}s", "-s", str(path), side.url]
        try:
            with started_on(self._cpus):
                done = subprocess.run(argv, capture_output=True, text=True, timeout=length_s + _LONGER_S, check=False)
        except subprocess.TimeoutExpired:
            raise EndpointError(f"wrk did not end against {side.name}.") from None
        if done.returncode:
            raise EndpointError(f"wrk failed against {side.name}: {(done.stderr or done.stdout).strip()}")
        return parse(done.stdout)


def version() -> str:
    """As it says itself; empty where there is none."""
    found = shutil.which("wrk")
    if found is None:
        return ""
    said = subprocess.run([found, "-v"], capture_output=True, text=True, check=False).stdout
    return " ".join(said.partition("Copyright")[0].split())


def script(side: Side, bodies: Sequence[str]) -> str:
    """In Lua: small chat requests, made before the load begins; the figures in one line at the end."""
    headers = {"Content-Type": "application/json", **side.headers}
    lines = [
        "wrk.method = 'POST'",
        f"wrk.path = '{PATH}'",
        *(f"wrk.headers[{_lua(name)}] = {_lua(value)}" for name, value in headers.items()),
        f"local bodies = {{{', '.join(map(_lua, bodies))}}}",
        "local made, at = {}, 0",
        "function init(args)",
        "  for number, body in ipairs(bodies) do made[number] = wrk.format(nil, nil, nil, body) end",
        "end",
        "function request()",
        "  at = at % #made + 1",
        "  return made[at]",
        "end",
        "function done(summary, latency, requests)",
        "  local e = summary.errors",
        f"  io.write(string.format('{_MARK}%d %d %d %d %d %d\\n', summary.requests, summary.duration,",
        "    e.connect + e.read + e.write + e.status + e.timeout,",
        "    latency:percentile(50), latency:percentile(99), latency.max))",
        "end",
    ]
    return "\n".join(lines) + "\n"


def body(model: str) -> str:
    """A small chat request, not streamed."""
    said = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": MAX_TOKENS}
    return json.dumps(said)


def parse(said: str) -> Shot:
    """The line of `script`; times in microseconds. Raises `EndpointError` where it is not there, or nothing was
    answered."""
    found = re.search(rf"^{_MARK}(\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$", said, re.MULTILINE)
    if found is None:
        raise EndpointError(f"wrk said nothing that can be read: {said.strip()[:500]}")
    requests, duration, errors, p50, p99, longest = map(int, found.groups())
    if not requests:
        raise EndpointError(f"Nothing was answered: {errors} of wrk's connections or requests failed.")
    return Shot(
        requests=requests,
        seconds=duration / 1e6,
        errors=errors,
        p50_s=p50 / 1e6,
        p99_s=p99 / 1e6,
        max_s=longest / 1e6,
    )


def _lua(text: str) -> str:
    """A string of Lua."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r") + "'"
