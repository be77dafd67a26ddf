"""The mock endpoint as a child process, and what it says of its own timing."""

import select
import subprocess
import sys
from types import TracebackType
from typing import Any

import httpx

from loramux_bench.errors import EndpointError

_START_S = 30.0
_READY = "mock endpoint: "


class MockProcess:
    """`python -m loramux_bench.mock` with these options, such as `ttft=0.1`. On entering it listens, at `url`."""

    def __init__(self, **options: float | str) -> None:
        self.url = ""
        self._options = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "MockProcess":
        """Raises `EndpointError`."""
        command = [sys.executable, "-m", "loramux_bench.mock", *self._options]
        process = self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], _START_S)
        line = process.stdout.readline() if ready else ""
        if not line.startswith(_READY):
            self._stop()
            raise EndpointError("The mock endpoint did not start.")
        self.url = line.removeprefix(_READY).strip()
        return self

    def log(self) -> dict[str, Any]:
        """What it did since the last `clear`."""
        answer: dict[str, Any] = httpx.get(f"{self.url}/mock/log", timeout=60.0).raise_for_status().json()
        return answer

    def clear(self) -> None:
        httpx.delete(f"{self.url}/mock/log", timeout=60.0).raise_for_status()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(_START_S)
            if process.stdout is not None:
                process.stdout.close()
