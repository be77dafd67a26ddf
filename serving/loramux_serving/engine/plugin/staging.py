"""The stager process, as the API server sees it."""

import asyncio
import base64
import json
import logging
import os
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count
from typing import Any

from loramux_serving.engine.plugin.stager import Recipe

_RESTART_AFTER_S = (1.0, 5.0, 30.0)
_MAX_LINE_BYTES = 1 << 20

_logger = logging.getLogger("vllm.plugins.loramux")


class Refused(Exception):
    """vLLM's loader does not take the adapter, and says why."""


class Unable(Exception):
    """The stager could not load it, for reasons that say nothing of the adapter."""


class StagerState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Staged:
    """A slab that a worker may open at `path`, until the block that gave it ends."""

    path: str
    size_bytes: int


class Stager:
    """Keeps the process up: started by `start`, started again where it ends. At most `workers` adapters are loaded at a
    time, which bounds its memory."""

    def __init__(self, recipe: str, *, workers: int) -> None:
        """`recipe` is a pickled `Recipe`, base64."""
        self._recipe = recipe
        self._workers = workers
        self._places = asyncio.Semaphore(workers)
        self._numbers = count(1)
        self._jobs: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.state = StagerState.STARTING

    def start(self) -> None:
        self._keeper = asyncio.create_task(self._keep_up(), name="stager")

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @asynccontextmanager
    async def staged(self, path: str) -> AsyncIterator[Staged]:
        """The adapter at `path` as a slab, for the length of the block, in which the workers map it. Raises `Refused`,
        and `Unable` where the process is not ready, ends meanwhile, or can not do it."""
        async with self._places:
            if self.state is not StagerState.READY:
                raise Unable(f"the stager is {self.state}")
            number = next(self._numbers)
            answer = self._jobs[number] = asyncio.get_running_loop().create_future()
            try:
                self._send({"job": number, "path": path})
                said = await answer
                if "refused" in said:
                    raise Refused(said["refused"])
                if "unable" in said:
                    raise Unable(said["unable"])
                yield Staged(said["slab"], said["bytes"])
            finally:
                self._jobs.pop(number, None)
                self._send({"drop": number})

    def _send(self, order: dict[str, Any]) -> None:
        """Short lines to a child that reads them at once: the pipe does not fill."""
        if self._process is not None and self._process.stdin is not None and self.state is StagerState.READY:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")

    async def _keep_up(self) -> None:
        failures = 0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._run()
            except OSError as error:
                _logger.warning("loramux: the stager does not start: %s", error)
            self.state = StagerState.DOWN
            self._process = None
            for answer in self._jobs.values():
                if not answer.done():
                    answer.set_result({"unable": "the stager ended"})
            failures = 0 if asyncio.get_running_loop().time() - began > _RESTART_AFTER_S[-1] else failures + 1
            pause_s = _RESTART_AFTER_S[min(failures, len(_RESTART_AFTER_S)) - 1] if failures else 0.0
            _logger.warning("loramux: the stager ended; adapters load the plain way for %g s or more", pause_s)
            await asyncio.sleep(pause_s)
            self.state = StagerState.STARTING

    async def _run(self) -> None:
        """Returns when the process has ended, for whatever reason."""
        environment = {
            **os.environ,
            "VLLM_PLUGINS": "",
            "VLLM_CONFIGURE_LOGGING": "0",
            "CUDA_VISIBLE_DEVICES": "",
            "LORAMUX_STAGING_WORKERS": str(self._workers),
        }
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "loramux_serving.engine.plugin.stager",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            limit=_MAX_LINE_BYTES,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"recipe": self._recipe}).encode() + b"\n")
            while line := await process.stdout.readline():
                self._heard(json.loads(line))
        except (ConnectionError, ValueError) as error:
            _logger.warning("loramux: the stager can not be understood: %s", error)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _heard(self, said: dict[str, Any]) -> None:
        if "ready" in said:
            self.state = StagerState.READY
            return
        answer = self._jobs.get(said["job"])
        if answer is not None and not answer.done():
            answer.set_result(said)


def merge(recipes: list[str]) -> str:
    """One recipe of all workers': with pipeline parallelism each knows the modules of its own layers."""
    loaded: list[Recipe] = [pickle.loads(base64.b64decode(recipe)) for recipe in recipes]
    packed = {name: parts for recipe in loaded for name, parts in recipe.packed_modules.items()}
    return base64.b64encode(pickle.dumps(replace(loaded[0], packed_modules=packed))).decode()
