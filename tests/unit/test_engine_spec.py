"""Golden: the whole command line and environment for each kind of engine."""

import json

import pytest

from loramux_serving.engine.spec import LaunchPlan, plan_launch
from loramux_serving.settings import EngineSettings

HOST_ENV = {"PATH": "/usr/bin", "LORAMUX_ADMIN_KEY": "secret", "LORAMUX_ENGINE__KIND": "cpu"}
SERVER = [
    "python3",
    "-m",
    "vllm.entrypoints.openai.api_server",
    *("--host", "127.0.0.1", "--port", "9001", "--model", "/models/tiny", "--served-model-name", "tiny"),
    *("--enable-request-id-headers", "--disable-uvicorn-access-log", "--disable-fastapi-docs"),
]
LORA = ["--enable-lora", "--max-loras", "8", "--max-cpu-loras", "32", "--max-lora-rank", "16"]
ENV = {
    "PATH": "/usr/bin",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_PLUGINS": "loramux",
    "PYTHONUNBUFFERED": "1",
    "LORAMUX_STAGING": "1",
    "LORAMUX_STAGING_WORKERS": "1",
    "LORAMUX_STAGING_NICENESS": "10",
    "HF_HUB_OFFLINE": "1",
}


def plan(
    settings: EngineSettings,
    host_env: dict[str, str] | None = None,
    *,
    model_dir: str = "/models/tiny",
    replica_index: int = 0,
) -> LaunchPlan:
    return plan_launch(
        settings,
        model_dir=model_dir,
        served_name="tiny",
        port=9001,
        replica_index=replica_index,
        host_env=HOST_ENV | (host_env or {}),
    )


def test_cpu() -> None:
    made = plan(EngineSettings(kind="cpu", python="python3", cpu_kvcache_gib=2))

    assert list(made.argv) == [*SERVER, *LORA, "--enforce-eager"]
    assert made.env == {**ENV, "VLLM_CPU_KVCACHE_SPACE": "2", "LORAMUX_CPU_LORA_KERNELS": "1"}
    assert plan(EngineSettings(kind="cpu", cpu_lora_kernels=False)).env["LORAMUX_CPU_LORA_KERNELS"] == "0"


def test_cpu_replicas_do_not_bind_to_the_same_cores() -> None:
    settings = EngineSettings(kind="cpu", replicas=2)

    assert plan(settings).env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert plan(settings, {"VLLM_CPU_OMP_THREADS_BIND": "0-3"}).env["VLLM_CPU_OMP_THREADS_BIND"] == "0-3"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in plan(EngineSettings(kind="cpu")).env


def test_cuda() -> None:
    settings = EngineSettings(
        kind="cuda",
        python="python3",
        dtype="bfloat16",
        max_model_len=4096,
        max_num_seqs=64,
        tensor_parallel_size=2,
        gpu_memory_utilization=0.85,
        enforce_eager=False,
        extra_args=["--enable-auto-tool-choice", "--tool-call-parser", "hermes"],
        extra_env={"VLLM_LOGGING_LEVEL": "WARNING"},
    )
    made = plan(settings)

    assert list(made.argv) == [
        *SERVER,
        *LORA,
        *("--dtype", "bfloat16", "--max-model-len", "4096", "--max-num-seqs", "64", "--tensor-parallel-size", "2"),
        *("--gpu-memory-utilization", "0.85"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    ]
    assert made.env == {**ENV, "VLLM_LOGGING_LEVEL": "WARNING"}


def test_neuron() -> None:
    made = plan(EngineSettings(kind="neuron", python="python3", dtype="bfloat16", tensor_parallel_size=2))

    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert list(made.argv) == [
        *SERVER,
        *LORA,
        *("--dtype", "bfloat16", "--tensor-parallel-size", "2"),
        *("--additional-config", json.dumps({"override_neuron_config": {"target_modules": modules}})),
    ]
    assert made.env == {**ENV, "VLLM_PLUGINS": "neuron,loramux"}


def test_on_neuron_an_own_additional_config_stands_alone() -> None:
    settings = EngineSettings(
        kind="neuron",
        extra_args=["--additional-config", '{"override_neuron_config": {"lora_ckpt_json": "/a.json"}}'],
    )
    argv = plan(settings).argv

    assert argv.count("--additional-config") == 1
    assert "lora_ckpt_json" in argv[argv.index("--additional-config") + 1]


def test_the_longest_prompt_reaches_the_plugin() -> None:
    assert plan(EngineSettings(max_prompt_tokens=512)).env["LORAMUX_MAX_PROMPT_TOKENS"] == "512"
    assert "LORAMUX_MAX_PROMPT_TOKENS" not in plan(EngineSettings()).env


@pytest.mark.parametrize(
    ("host", "extra", "expected"),
    [
        (None, None, "loramux"),
        ("mine", None, "mine,loramux"),
        ("mine,loramux", None, "mine,loramux"),
        ("mine", "theirs", "theirs,loramux"),
        ("", None, "loramux"),
    ],
)
def test_plugins_of_the_user_are_kept(host: str | None, extra: str | None, expected: str) -> None:
    settings = EngineSettings(extra_env={} if extra is None else {"VLLM_PLUGINS": extra})

    assert plan(settings, {} if host is None else {"VLLM_PLUGINS": host}).env["VLLM_PLUGINS"] == expected


def test_the_gateways_own_variables_are_not_handed_on() -> None:
    made = plan(EngineSettings(), {"VLLM_API_KEY": "secret", "HF_TOKEN": "for gated bases"})

    assert "HF_TOKEN" in made.env
    assert "VLLM_API_KEY" not in made.env
    assert not made.env.keys() & HOST_ENV.keys() - {"PATH"}
    assert "secret" not in " ".join(made.argv)


def test_a_hub_id_may_be_downloaded() -> None:
    assert "HF_HUB_OFFLINE" not in plan(EngineSettings(), model_dir="meta-llama/Llama-3.1-8B").env


@pytest.mark.parametrize(
    ("visible", "index", "expected"), [("", 0, "0,1"), ("", 1, "2,3"), ("4,5,6,7", 1, "6,7"), ("GPU-a,GPU-b", 0, None)]
)
def test_each_replica_gets_gpus_of_its_own(visible: str, index: int, expected: str | None) -> None:
    settings = EngineSettings(kind="cuda", replicas=2 if expected else 1, tensor_parallel_size=2)
    made = plan(settings, {"CUDA_VISIBLE_DEVICES": visible} if visible else {}, replica_index=index)

    assert made.env.get("CUDA_VISIBLE_DEVICES") == (expected or visible)
