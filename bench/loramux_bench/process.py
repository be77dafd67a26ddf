"""The load process: Locust, as a child that writes a run's directory. It is a process of its own because Locust patches
the whole process that imports it, and because what it has recorded must outlive it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import msgspec

from loramux_bench.errors import NotInstalled, ResultsError
from loramux_bench.loopback import free_port
from loramux_bench.run_dir import RunDir
from loramux_bench.scenario import Scenario

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_KILL_AFTER_S = 30.0


class LoadProcess:
    """Runs one scenario into `run`, with a Locust master that records and `processes` workers that make the load: what
    the master does is not in their way. Leaving the block ends what is left of it."""

    def __init__(
        self,
        scenario: Scenario,
        run: RunDir,
        *,
        processes: int = 1,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._scenario = scenario
        self._run = run
        self._processes = processes
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "LoadProcess":
        """Starts it. Raises `ResultsError`, and `NotInstalled` without Locust."""
        if find_spec("locust") is None:
            raise NotInstalled("Load needs Locust: pip install 'loramux[bench]', in a checkout make .venv/.bench.")
        scenario_path = self._run.scenario_path
        try:
            scenario_path.write_bytes(msgspec.json.format(self._scenario.model_dump_json(), indent=2).encode())
            log = self._run.log_path.open("wb")
        except OSError as error:
            raise ResultsError(f"Results can not be written to {self._run.path}: {error.strerror}.") from error
        port = str(free_port())
        command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--only-summary"]
        command += ["--processes", str(self._processes), "--exit-code-on-error", "0"]
        command += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
        with log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **self._environment,
                    "LORAMUX_BENCH_SCENARIO": str(scenario_path),
                    "LORAMUX_BENCH_SET": "",
                    "LORAMUX_BENCH_RUN": str(self._run.path),
                },
                start_new_session=True,  # an interrupt comes to us, and we hand it on to the master alone
            )
        return self

    def ended(self, timeout_s: float) -> bool:
        """Whether it has ended, at the latest after so long."""
        try:
            self._running.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def exit_status(self) -> int:
        """Of a process that has ended; negative for a signal."""
        status = self._running.returncode
        assert status is not None
        return status

    @property
    def pid(self) -> int:
        """Of the master."""
        return self._running.pid

    def interrupt(self) -> None:
        """Ask it to end now; it keeps what it has."""
        if self._running.poll() is None:
            self._running.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it and its workers at once."""
        if self._running.poll() is None:
            os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait()

    def last_words(self, lines: int = 15) -> str:
        """The end of its log, for failures that nobody foresaw."""
        text = self._run.log_path.read_text("utf-8", "replace") if self._run.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._child is not None, "not started"
        return self._child

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.interrupt()
        if not self.ended(_KILL_AFTER_S):
            self.kill()
