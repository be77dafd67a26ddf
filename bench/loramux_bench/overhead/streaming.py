"""Many streams against one side: the engine's pace is set, the generator runs as a child."""

import subprocess
import sys

import httpx
import msgspec

from loramux_bench.errors import EndpointError
from loramux_bench.overhead.cores import Cpus, started_on
from loramux_bench.overhead.generator.job import Job, Report
from loramux_bench.overhead.side import Side
from loramux_bench.overhead.wrk import PATH, PROMPT

TTFT_S = 0.02
ITL_S = 0.02
TOKENS = 64
LATE_S = 0.02
"""A frame that comes later than this is late: as long as the pause to the next."""

_LONGER_S = 60.0


def paced(side: Side, engine: Side, cpus: Cpus, *, streams: int, seconds: float) -> Report:
    """Streams of 64 deltas, 20 ms apart. Raises `EndpointError` where none came to its end or a frame."""
    return _run(side, engine, cpus, streams=streams, tokens=TOKENS, ttft_s=TTFT_S, itl_s=ITL_S, seconds=seconds)


def unpaced(side: Side, engine: Side, cpus: Cpus, *, streams: int, tokens: int, seconds: float) -> Report:
    """Likewise, each delta as soon as the one before is written."""
    return _run(side, engine, cpus, streams=streams, tokens=tokens, ttft_s=0.0, itl_s=0.0, seconds=seconds)


def _run(
    side: Side, engine: Side, cpus: Cpus, *, streams: int, tokens: int, ttft_s: float, itl_s: float, seconds: float
) -> Report:
    set_pace(engine, ttft_s=ttft_s, itl_s=itl_s)
    host, port = side.address
    job = Job(
        host=host,
        port=port,
        path=PATH,
        headers=side.headers,
        model=side.model,
        prompt=PROMPT,
        streams=streams,
        tokens=tokens,
        ttft_s=ttft_s,
        itl_s=itl_s,
        seconds=seconds,
        late_s=LATE_S,
    )
    argv = [sys.executable, "-m", "loramux_bench.overhead.generator"]
    longest_s = job.ramp_s + seconds + _LONGER_S
    try:
        with started_on(cpus):
            done = subprocess.run(
                argv, input=msgspec.json.encode(job), capture_output=True, timeout=longest_s, check=False
            )
    except subprocess.TimeoutExpired:
        raise EndpointError(f"The generator did not end against {side.name}.") from None
    if done.returncode:
        raise EndpointError(f"The generator failed against {side.name}: {done.stderr.decode(errors='replace')[-2000:]}")
    report = msgspec.json.decode(done.stdout, type=Report)
    if not report.frames:
        raise EndpointError(f"{side.name} streamed nothing: {report.failure or 'no frame came in time'}.")
    return report


def set_pace(engine: Side, *, ttft_s: float, itl_s: float) -> None:
    """Of the mock engine's streams from now on. Raises `EndpointError`."""
    try:
        answer = httpx.post(f"{engine.url}/mock/pace", json={"ttft_s": ttft_s, "itl_s": itl_s}, trust_env=False)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise EndpointError(f"The mock engine took no pace: {error!r}.") from error
