"""Servers as child processes: started, waited for, ended with all that they started."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from loramux_bench.errors import EndpointError, ResultsError
from loramux_bench.interrupts import interrupts_held

_LOOK_EVERY_S = 0.05
_STOP_S = 60.0
_LAST_LINES = 25


class Child:
    """A process in a session of its own, its output in a file."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._name = name
        self._argv = list(argv)
        self._env = dict(env)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, healthy: str, timeout_s: float) -> float:
        """Returns when a GET of `healthy` answers 200: seconds since the start. Where it raises, nothing is left."""
        began = time.perf_counter()
        try:
            with interrupts_held():  # a process that was started and not noted would stay
                self._process = self._spawn()
            self._wait(healthy, began + timeout_s)
        except BaseException:
            self.stop()
            raise
        return time.perf_counter() - began

    def _spawn(self) -> "subprocess.Popen[bytes]":
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as log:
                return subprocess.Popen(
                    self._argv,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise ResultsError(f"{self._name} can not be started: {error.strerror} ({error.filename}).") from error

    def _wait(self, healthy: str, deadline: float) -> None:
        assert self._process is not None
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while True:
                with suppress(httpx.TransportError):
                    if client.get(healthy).status_code == 200:
                        return
                if (status := self._process.poll()) is not None:
                    raise EndpointError(f"{self._name} ended with status {status}. It said:\n{self._last_words()}")
                if time.perf_counter() >= deadline:
                    raise EndpointError(f"{self._name} did not get ready in time. It said:\n{self._last_words()}")
                time.sleep(_LOOK_EVERY_S)

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-_LAST_LINES:])

    def stop(self) -> None:
        """SIGTERM, and after a minute, or a second Ctrl-C, SIGKILL; SIGKILL to whatever is left of its group in any
        case. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            if process.poll() is None:
                process.terminate()
                process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
