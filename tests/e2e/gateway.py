"""A gateway as operators run it: the command, in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx

COMMAND = str(Path(sys.executable).with_name("loramux"))
START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 60.0


class GatewayProcess:
    """`loramux serve` with its state in `home`. A context manager; `start`, `kill` and `stop` can be called within.
    Its log is in `home`/gateway.log."""

    def __init__(self, home: Path, *args: str, **env: str) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._args = args
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def key(self) -> str:
        return (self.home / "admin.key").read_text().strip()

    @property
    def log(self) -> str:
        return (self.home / "gateway.log").read_text()

    def start(self, *, ready: bool = True) -> None:
        """Returns when it is ready, or, with `ready` false, when it answers at all."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("LORAMUX_")}
        env |= {"LORAMUX_HOME": str(self.home), "LORAMUX_PORT": str(self.port), **self._env}
        with (self.home / "gateway.log").open("ab") as log:
            self._process = subprocess.Popen(
                [COMMAND, "serve", *self._args],
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait_for("/readyz" if ready else "/healthz")

    def wait_for(self, path: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Until `path` answers 200."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, f"the gateway ended:\n{self.log[-4000:]}"
            try:
                if httpx.get(self.url + path, timeout=5.0).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"{path} was not 200 within {timeout_s} s:\n{self.log[-4000:]}")

    def wait_for_adapters(self, *names: str) -> None:
        """Until they all answer."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            models = self.models()
            if models.issuperset(names):
                return
            time.sleep(0.1)
        raise AssertionError(f"{names} not served:\n{self.log[-4000:]}")

    def models(self) -> set[str]:
        with self.client() as client:
            return {model["id"] for model in client.get("/v1/models").raise_for_status().json()["data"]}

    def ask(self, model: str, prompt: str, *, max_tokens: int = 12) -> str:
        """The greedy answer."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        with self.client() as client:
            answer = client.post("/v1/chat/completions", json=body)
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"])

    def kill(self) -> None:
        """kill -9 of the gateway's process alone, as the kernel would do it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        """Exit status, None where it did not run."""
        if self._process is None:
            return None
        self._process.send_signal(how)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        finally:
            if self._process.poll() is None:
                self._process.kill()
            self._process = None

    def client(self, timeout_s: float = 120.0) -> httpx.Client:
        """With the admin key."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=timeout_s)

    def admin(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        with self.client() as client:
            return client.request(method, f"/admin/v1{path}", **arguments)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
