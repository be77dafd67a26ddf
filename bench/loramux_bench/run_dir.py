"""The directory that a run writes, and nothing else about where results lie.

| file | holds |
|---|---|
| `run.json` | `RunInfo`: the scenario, the environment, what was prepared, how it ended |
| `scenario.json` | the scenario that was run: `run` takes it again |
| `requests.jsonl` | a `RequestRecord` a line, as they end |
| `samples.jsonl` | a `Sample` a line: what was scraped, and how the generator was |
| `churn.jsonl` | a `ChurnRecord` a line |
| `summary.json`, `report.html` | made from the above; can be made again |
| `load.log` | what the load process printed |
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from loramux_bench.errors import ResultsError
from loramux_bench.record import RequestRecord, decode_all

FORMAT = 1

T = TypeVar("T")


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was seen at one moment. Each field is None where it was not asked for or not answered."""

    at_s: float
    """Since the run's start; of what was scraped, when it had come."""
    metrics: dict[str, float] | None = None
    """Gauges and counters by Prometheus name with labels, such as `loramux_requests_outstanding{replica="engine-0"}`;
    of histograms the `_sum` and `_count`."""
    tiers: dict[str, str] | None = None
    """Best tier of each adapter's live version over the replicas: `gpu`, `cpu`, `disk`, `remote`."""
    replicas: dict[str, str] | None = None
    """State by id."""
    generator: "Generator | None" = None


class Generator(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one load process was over the last interval."""

    worker: int = 0
    users: int
    in_flight: int
    cpu: float
    """Share of one core that this process used: 1.0 is all of it."""
    machine_cpu: float
    """Share of all cores of the machine that were in use, by anybody."""
    loop_lag_s: float
    """Largest lateness of a timer."""


class ChurnRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change through the admin interface, from the call to its acknowledgement."""

    at_s: float
    action: str
    """`add`, `update` or `delete`."""
    adapter: str
    took_s: float
    status: int = 0
    error: str = ""


class RunInfo(msgspec.Struct, kw_only=True):
    """`run.json`. Written at the start, and again at the end."""

    format: int = FORMAT
    name: str
    scenario: dict[str, Any]
    """As it was run, overrides applied; without keys."""
    started_at: float = 0.0
    """Unix seconds of offset 0: when the load began; 0.0 if it never did."""
    ended_s: float | None = None
    """When the last request had ended; None in a run that was killed."""
    outcome: str = "running"
    """`running`, `done`, `interrupted`, `failed`."""
    failure: str = ""
    """A sentence, where `failed`."""
    status: str = ""
    """What is being done now, for people."""
    workers: int = 1
    ready_wait_s: float = 0.0
    """How long the endpoint said "not ready" before the load began."""
    prepare_s: float = 0.0
    notes: list[str] = msgspec.field(default_factory=list)
    """Sentences: what was not as the scenario wants it."""
    left_undone: list[str] = msgspec.field(default_factory=list)
    """Sentences: what was made for the run and could not be taken away after it."""
    adapters: list[str] = msgspec.field(default_factory=list)
    base: str = ""
    """The base's name, where known."""
    tokenizer: str = ""
    """How prompt lengths were made: a path, or `endpoint`."""
    prompt_overhead_tokens: float = 0.0
    """Of the chat template, as the endpoint counts an empty prompt; 0 where not known."""
    environment: dict[str, Any] = msgspec.field(default_factory=dict)


class RunDir:
    """The files of one run below `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, results: Path, name: str) -> "RunDir":
        """A new, empty directory `<results>/<name>-<time>`. Raises `ResultsError`."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for count in range(1, 1000):
            path = results / (f"{name}-{stamp}" if count == 1 else f"{name}-{stamp}-{count}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise ResultsError(f"Results can not be written below {results}: {error.strerror}.") from error
            return cls(path)
        raise ResultsError(f"There are too many results of this second below {results}.")

    @property
    def info_path(self) -> Path:
        return self.path / "run.json"

    @property
    def scenario_path(self) -> Path:
        return self.path / "scenario.json"

    @property
    def requests_path(self) -> Path:
        return self.path / "requests.jsonl"

    @property
    def samples_path(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def churn_path(self) -> Path:
        return self.path / "churn.jsonl"

    @property
    def summary_path(self) -> Path:
        return self.path / "summary.json"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    @property
    def log_path(self) -> Path:
        return self.path / "load.log"

    def write_info(self, info: RunInfo) -> None:
        """Whole or not at all: readers may look at any time. Raises `OSError`."""
        scratch = self.info_path.with_suffix(".tmp")
        scratch.write_bytes(msgspec.json.format(msgspec.json.encode(info), indent=2))
        scratch.replace(self.info_path)

    def info(self) -> RunInfo:
        """Raises `ResultsError`."""
        try:
            found = msgspec.json.decode(self.info_path.read_bytes(), type=RunInfo)
        except FileNotFoundError:
            raise ResultsError(f"{self.path} holds no results: there is no run.json.") from None
        except (OSError, msgspec.DecodeError) as error:
            raise ResultsError(f"{self.info_path} can not be read: {error}.") from error
        if found.format != FORMAT:
            raise ResultsError(f"{self.info_path} has format {found.format}; this version reads {FORMAT}.")
        return found

    def requests(self) -> Iterator[RequestRecord]:
        """Raises `ResultsError`."""
        if self.requests_path.exists():
            with self.requests_path.open("rb") as lines:
                yield from decode_all(lines, self.requests_path)

    def samples(self) -> list[Sample]:
        """Raises `ResultsError`."""
        return _lines(self.samples_path, Sample)

    def churn(self) -> list[ChurnRecord]:
        """Raises `ResultsError`."""
        return _lines(self.churn_path, ChurnRecord)


def _lines(path: Path, kind: type[T]) -> list[T]:
    if not path.exists():
        return []
    found: list[T] = []
    decoder = msgspec.json.Decoder(kind)
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            found.append(decoder.decode(line))
        except msgspec.DecodeError as error:
            if number == len(lines):
                break  # torn by a kill
            raise ResultsError(f"{path}: line {number}: {error}.") from error
    return found
