"""What a run has changed at an endpoint, and how each change is taken back."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from loramux_bench.admin.client import CallFailed
from loramux_bench.errors import BenchError

_AT_A_TIME = 4


class Restoration:
    """A context manager: what has not been taken back when the block is left, by whatever way, is taken back then, and
    `complain` gets a sentence for each thing that could not be. `owe`, `settle` and `run` are safe to use from several
    threads."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self.resources = ExitStack()
        """What the steps need: closed at the end of the block."""
        self._complain = complain
        self._lock = threading.Lock()
        self._steps: dict[str, Callable[[], None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.resources:
            for sentence in self.run():
                self._complain(sentence)

    def owe(self, what: str, step: Callable[[], None]) -> None:
        """From now on `step` takes the change back; `what` says it in words, such as "delete the adapter 'bench-000'",
        and is its name: what is owed already stays as it is. Say it before the change is made: `step` must do nothing
        where it was not."""
        with self._lock:
            self._steps.setdefault(what, step)

    def settle(self, what: str) -> None:
        """It is taken back already. No effect where it is not known."""
        with self._lock:
            self._steps.pop(what, None)

    def run(self) -> tuple[str, ...]:
        """Take everything back, the newest first, a few at a time. A step that fails does not end the rest, unless the
        endpoint has gone; a sentence for each failure. A second call has nothing to do."""
        with self._lock:
            steps, self._steps = list(reversed(self._steps.items())), {}
        gone = threading.Event()
        untried: list[str] = []

        def attempt(step: tuple[str, Callable[[], None]]) -> str:
            what, act = step
            if gone.is_set():
                untried.append(what)
                return ""
            try:
                act()
            except BenchError as error:
                if isinstance(error, CallFailed) and error.code == "connect":
                    gone.set()
                return f"The bench could not {what}: {error}"
            return ""

        pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="restoration")
        try:
            sentences = [sentence for sentence in pool.map(attempt, steps) if sentence]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if untried:
            sentences.append(f"Nor could it, as the endpoint is gone: {'; '.join(untried)}.")
        return tuple(sentences)
