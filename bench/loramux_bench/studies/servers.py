"""Servers that a study starts for itself: a stock vLLM, and loramux with a vLLM below it.

Both are children on loopback, each in a session of its own, so that Ctrl-C in a terminal comes to the study alone. They
end with the block, with all that they started; only a SIGKILL of the study leaves a stock vLLM behind.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from loramux_bench.admin.client import AdminClient
from loramux_bench.errors import EndpointError, NotInstalled
from loramux_bench.loopback import free_port
from loramux_bench.studies.children import Child

DEFAULT_BASE = Path("~/.cache/loramux/bases/SmolLM2-135M-Instruct")
"""The embedded base, where loramux unpacks it."""

Kind = Literal["cpu", "cuda"]

_KVCACHE_GIB = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineShape:
    """What both sides' vLLM is told, in the same words."""

    base: Path = DEFAULT_BASE
    """Directory of the base's checkpoint."""
    kind: Kind = "cpu"
    max_loras: int = 4
    max_cpu_loras: int = 8
    max_lora_rank: int = 64
    max_model_len: int = 2048
    gpu_memory_utilization: float = 0.9
    """`cuda` only."""
    enforce_eager: bool = True
    extra_args: tuple[str, ...] = ()
    """Further arguments of vLLM's API server; last, so they win."""
    python: str = sys.executable
    """Interpreter of the environment in which vLLM is installed."""

    @property
    def directory(self) -> Path:
        """The base's, absolute. Raises `EndpointError` where it is not there."""
        found = self.base.expanduser().absolute()
        if not (found / "config.json").is_file():
            raise EndpointError(f"There is no base model at {found}; `loramux serve` unpacks the default once.")
        return found

    @property
    def name(self) -> str:
        """How callers ask for the base."""
        return self.directory.name


class StockVllm:
    """vLLM's own API server, without our plugin. A context manager; on entering it is healthy, at `url`."""

    def __init__(
        self,
        shape: EngineShape,
        *,
        log: Path,
        extra_args: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
        start_timeout_s: float = 600.0,
    ) -> None:
        """`log` is the file that its output is added to. `extra_args` come after the shape's."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.shape = shape
        self.ready_s = 0.0
        """From its start to its readiness."""
        self._child = Child(
            "vLLM",
            [shape.python, "-m", "vllm.entrypoints.openai.api_server", *_vllm_args(shape, port), *extra_args],
            _vllm_environment(shape, environment),
            log,
        )
        self._start_timeout_s = start_timeout_s

    def __enter__(self) -> Self:
        """Raises `EndpointError` with its last words where it does not come up."""
        self.ready_s = self._child.start(f"{self.url}/health", self._start_timeout_s)
        return self

    @property
    def pid(self) -> int:
        """Of the API server."""
        return self._child.pid

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._child.stop()


class Loramux:
    """`loramux serve` with its state in `home` and the same engine. A context manager; on entering it is ready, at
    `url`. Entered again on the same home, it finds what was registered."""

    def __init__(
        self,
        shape: EngineShape,
        *,
        home: Path,
        log: Path,
        roots: Sequence[Path] = (),
        settings: Mapping[str, str] | None = None,
        extra_args: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
        start_timeout_s: float = 660.0,
    ) -> None:
        """`roots` are the directories that adapters may come from. `settings` are variables of the gateway without
        their prefix, such as `{"ARTIFACTS__DISK_BYTES": "100000000"}`; `extra_args` are vLLM's."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.shape = shape
        self.home = home
        self.ready_s = 0.0
        """From its start to its readiness, the engine's start included."""
        given = {**_gateway_settings(shape, extra_args), "HOME": str(home), "PORT": str(port), **(settings or {})}
        if roots:
            given["ARTIFACTS__ROOTS"] = json.dumps([str(root.absolute()) for root in roots])
        inherited = {name: value for name, value in environment.items() if not name.startswith("LORAMUX_")}
        self._child = Child(
            "loramux",
            [_loramux(), "serve"],
            {**inherited, **{f"LORAMUX_{name}": value for name, value in given.items()}},
            log,
        )
        self._start_timeout_s = start_timeout_s

    def __enter__(self) -> Self:
        """Raises `EndpointError` with its last words where it does not come up."""
        self.ready_s = self._child.start(f"{self.url}/readyz", self._start_timeout_s)
        return self

    @property
    def pid(self) -> int:
        """Of the gateway; its engine has another."""
        return self._child.pid

    @property
    def admin_key(self) -> str:
        """Raises `EndpointError` where it is not there."""
        try:
            return (self.home / "admin.key").read_text("utf-8").strip()
        except OSError as error:
            raise EndpointError(f"The gateway's admin key can not be read: {error.strerror}.") from error

    def admin(self) -> AdminClient:
        """A client with the admin key; the caller's to close."""
        return AdminClient(self.url, self.admin_key)

    @property
    def engine_url(self) -> str:
        """Of its first engine, below the gateway. Raises `EndpointError`."""
        with self.admin() as admin:
            return next((replica.url for replica in admin.replicas() if replica.url), "")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._child.stop()


class S3Server:
    """A server of the S3 protocol over HTTP: moto's. A context manager. `environment` holds an address's credentials:
    those of nobody, in the form that boto3 reads."""

    def __init__(self, *, log: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._child = Child(
            "moto",
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            dict(os.environ),
            log,
        )

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __enter__(self) -> Self:
        """Raises `EndpointError` where it does not come up."""
        self._child.start(f"{self.url}/moto-api/", 60.0)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._child.stop()


def _vllm_args(shape: EngineShape, port: int) -> list[str]:
    """As loramux starts it: see its `engine/spec.py`."""
    args = ["--host", "127.0.0.1", "--port", str(port)]
    args += ["--model", str(shape.directory), "--served-model-name", shape.name]
    args += ["--disable-uvicorn-access-log", "--enable-lora"]
    args += ["--max-loras", str(shape.max_loras), "--max-cpu-loras", str(shape.max_cpu_loras)]
    args += ["--max-lora-rank", str(shape.max_lora_rank), "--max-model-len", str(shape.max_model_len)]
    if shape.kind == "cuda":
        args += ["--gpu-memory-utilization", str(shape.gpu_memory_utilization)]
    if shape.enforce_eager:
        args += ["--enforce-eager"]
    return [*args, *shape.extra_args]


def _vllm_environment(shape: EngineShape, inherited: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value for name, value in inherited.items() if not name.startswith("LORAMUX_") and name != "VLLM_API_KEY"
    }
    kept |= {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": "",  # a list without names: no plugin loads, ours neither
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if shape.kind == "cpu":
        kept["VLLM_CPU_KVCACHE_SPACE"] = str(_KVCACHE_GIB)
    return kept


def _gateway_settings(shape: EngineShape, extra_args: Sequence[str]) -> dict[str, str]:
    return {
        "ENGINE__KIND": shape.kind,
        "ENGINE__MODEL": str(shape.directory),
        "ENGINE__NAME": shape.name,
        "ENGINE__PYTHON": shape.python,
        "ENGINE__MAX_LORAS": str(shape.max_loras),
        "ENGINE__MAX_CPU_LORAS": str(shape.max_cpu_loras),
        "ENGINE__MAX_LORA_RANK": str(shape.max_lora_rank),
        "ENGINE__MAX_MODEL_LEN": str(shape.max_model_len),
        "ENGINE__GPU_MEMORY_UTILIZATION": str(shape.gpu_memory_utilization),
        "ENGINE__ENFORCE_EAGER": json.dumps(shape.enforce_eager),
        "ENGINE__CPU_KVCACHE_GIB": str(_KVCACHE_GIB),
        "ENGINE__EXTRA_ARGS": json.dumps([*shape.extra_args, *extra_args]),
    }


def _loramux() -> str:
    """The command, of this environment before that of the path."""
    beside = Path(sys.executable).with_name("loramux")
    found = str(beside) if beside.exists() else shutil.which("loramux")
    if found is None:
        raise NotInstalled("The command `loramux` is not here: install the gateway's package in this environment.")
    return found
