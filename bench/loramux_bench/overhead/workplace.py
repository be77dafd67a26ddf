"""What every part of the measurement has: where to write, the cores, the base, where other gateways are installed."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from loramux_bench.errors import ResultsError
from loramux_bench.overhead.cores import Cores
from loramux_bench.overhead.side import Side
from loramux_bench.overhead.small_base import write_base
from loramux_bench.studies.study import StudyDir

BASE = "lora-base"
"""As long as an adapter's name, so that requests are."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """`tell` says in a line what is going on, or what was left out."""

    study: StudyDir
    cores: Cores
    peers: Path
    """Environment in which other gateways are installed; need not be there."""
    tell: Callable[[str], None]
    kept: ExitStack
    """Ended with the workplace: what several parts share."""
    started: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the name of a log: how that server was started, for the JSON."""
    running: dict[str, Side] = field(default_factory=dict)
    """By name: what `lineup` has started."""
    left_out: dict[str, str] = field(default_factory=dict)
    """By name: why a side could not be measured."""

    @classmethod
    @contextmanager
    def open(cls, study: StudyDir, cores: Cores, peers: Path, tell: Callable[[str], None]) -> "Iterator[Workplace]":
        with ExitStack() as kept:
            yield cls(study, cores, peers, tell, kept)

    def note(
        self, name: str, package: str, command: Sequence[str], environment: Mapping[str, str], config: str = ""
    ) -> None:
        """How a server is started; the path of its environment and addresses that change are of no use to others."""
        self.started[name] = {
            "package": package,
            "version": self._version(package),
            "command": list(command),
            "environment": dict(environment),
            "config": config,
        }

    def _version(self, package: str) -> str:
        """Of the environment of other gateways, before this one."""
        places = [*(str(found) for found in self.peers.glob("lib/python*/site-packages")), *sys.path]
        return next((found.version for found in distributions(name=package, path=places)), "")

    @property
    def base(self) -> Path:
        """A checkpoint of Llama's shapes, small, made once: the mock engine computes nothing, and the gateway checks
        adapters against it. Raises `ResultsError`."""
        directory = self.study.scratch / BASE
        if not (directory / "config.json").exists():
            try:
                write_base(directory)
            except OSError as error:
                raise ResultsError(f"{directory} can not be written: {error.strerror}.") from error
        return directory
