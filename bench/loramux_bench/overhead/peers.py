"""How other gateways are started before one engine: as somebody would in production, on one core."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from loramux_bench.overhead.side import Peer


@dataclass(frozen=True, slots=True)
class Start:
    """A command, without the path of its environment; `environment` is added to ours."""

    package: str
    """Whose version is told."""
    command: tuple[str, ...]
    health: str
    """Path that answers 200 when it takes requests."""
    environment: dict[str, str] = field(default_factory=dict)
    key_variable: str = ""
    """Takes the key that callers must have; empty: anybody may call."""
    config: str = ""
    """Content of the file that `{config}` in `command` stands for."""

    def argv(self, environment: Path, config: Path) -> list[str]:
        program, *arguments = (part.replace("{config}", str(config)) for part in self.command)
        return [str(environment / "bin" / program), *arguments]


def _vllm_router(engine_url: str, port: int, metrics_port: int, model: str, policy: str = "round_robin") -> Start:
    """`policy` empty: its own default."""
    return Start(
        "vllm-router",
        (
            *("vllm-router", "--host", "127.0.0.1", "--port", str(port), "--worker-urls", *engine_url.split(",")),
            *(("--policy", policy) if policy else ()),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port)),
            *("--worker-startup-check-interval", "1"),
        ),
        "/health",
    )


def _sglang_router(engine_url: str, port: int, metrics_port: int, model: str) -> Start:
    return Start(
        "sglang-router",
        (
            *("python", "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port)),
            *("--worker-urls", engine_url, "--policy", "round_robin"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port)),
            *("--worker-startup-check-interval", "1"),
        ),
        "/health",
    )


def _litellm(engine_url: str, port: int, metrics_port: int, model: str) -> Start:
    config = {
        "model_list": [
            {
                "model_name": model,
                "litellm_params": {"model": f"hosted_vllm/{model}", "api_base": f"{engine_url}/v1", "api_key": "none"},
            }
        ],
        "litellm_settings": {"telemetry": False},
    }
    return Start(
        "litellm",
        (
            *("litellm", "--config", "{config}", "--host", "127.0.0.1", "--port", str(port)),
            *("--num_workers", "1"),
        ),
        "/health/liveliness",
        {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # nothing is fetched from outside
        "LITELLM_MASTER_KEY",
        json.dumps(config),  # JSON is YAML
    )


STARTS: dict[Peer, Callable[[str, int, int, str], Start]] = {
    "vllm-router": _vllm_router,
    "vllm-router-default": partial(_vllm_router, policy=""),
    "sglang-router": _sglang_router,
    "litellm": _litellm,
}
"""Given the address of the engine (of several, with commas between), a port to listen on, one for metrics, and the
model's name."""
