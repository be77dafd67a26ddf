"""The mock endpoint in a process of its own, for whoever measures against it."""

import select
import subprocess
import sys
from types import TracebackType
from typing import Any

import httpx

from loramux_bench.errors import EndpointError

_START_S = 30.0
_STOP_S = 10.0
_READY = "mock endpoint: "


class MockProcess:
    """A context manager. The options are the command's: `MockProcess(ttft=0.1, tokens_per_chunk=2, comments=True)` is
    `--ttft 0.1 --tokens-per-chunk 2 --comments`. On entering it listens, at `url`."""

    def __init__(self, **options: float | str | bool) -> None:
        self.url = ""
        self._options = [part for name, value in options.items() for part in _option(name, value)]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "MockProcess":
        """Raises `EndpointError` where it does not start."""
        command = [sys.executable, "-m", "loramux_bench.mock", *self._options]
        process = self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], _START_S)
        line = process.stdout.readline() if ready else ""
        if not line.startswith(_READY):
            self.stop()
            raise EndpointError(f"The mock endpoint did not start with {' '.join(self._options)}.")
        self.url = line.removeprefix(_READY).strip()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> dict[str, Any]:
        """What it did since it started, or since `clear_log`: `requests`, oldest first, and how late its own writes
        were. Reading it keeps the mock from its work for a while."""
        answer: dict[str, Any] = httpx.get(f"{self.url}/mock/log", timeout=60.0).raise_for_status().json()
        return answer

    def clear_log(self) -> None:
        httpx.delete(f"{self.url}/mock/log", timeout=60.0).raise_for_status()

    def stop(self) -> None:
        """Ends the process; nothing if it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_S)
        finally:
            if process.stdout is not None:
                process.stdout.close()


def _option(name: str, value: float | str | bool) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else []
    return [flag, str(value)]
