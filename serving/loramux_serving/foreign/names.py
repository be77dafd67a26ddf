"""The variables of LMI and TGI, each once: what it sets here, and how its value is read; or why it does nothing. Pure.

Names, values and defaults are those of LMI's documentation (`docs.djl.ai`, configurations and the vLLM guide), of TGI's
launcher (`--help`), of its Neuron backend and of its SageMaker image. `docs/settings.md` has these tables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from loramux_serving.foreign import values
from loramux_serving.settings import Value

Family = Literal["LMI", "TGI", "LMI, TGI"]

MODEL_VARIABLES = ("HF_MODEL_ID", "MODEL_ID")
"""Without one of them nobody starts TGI on purpose."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that sets `setting`, by its full name (`engine.max_loras`).

    `kind`: only for engines of this kind. `beside_model`: the name is so general that it counts only where one of
    `MODEL_VARIABLES` is set too. `counts` None: every value does.
    """

    name: str
    family: Family
    setting: str
    read: Callable[[str], Value]
    takes: str
    kind: str = ""
    beside_model: bool = False
    counts: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """A variable that asks for what loramux always does: `read` refuses every other value."""

    name: str
    family: Family
    read: Callable[[str], Value]
    takes: str
    instead: str


@dataclass(frozen=True, slots=True)
class Unused:
    """A variable that does nothing here, and why. Its value is never shown."""

    name: str
    family: Family
    reason: str
    beside_model: bool = False


_MODEL = "directory, hub id or `s3://bucket/prefix`"
_COUNT = "whole number from 1"
_DTYPE = "`auto`, `fp16`, `bf16`, `fp32`, or vLLM's names of these"
_SHARE = "above 0, at most 1"

VARIABLES = (
    Variable("HF_MODEL_ID", "LMI, TGI", "engine.model", values.model, _MODEL),
    Variable("OPTION_MODEL_ID", "LMI", "engine.model", values.model, _MODEL),
    Variable("MODEL_ID", "TGI", "engine.model", values.model, _MODEL),
    Variable("HF_MODEL_REVISION", "LMI, TGI", "engine.revision", values.text, "branch, tag or commit"),
    Variable("OPTION_REVISION", "LMI", "engine.revision", values.text, "branch, tag or commit"),
    Variable("REVISION", "TGI", "engine.revision", values.text, "branch, tag or commit", beside_model=True),
    Variable("OPTION_MAX_LORAS", "LMI", "engine.max_loras", values.count, _COUNT),
    Variable("OPTION_MAX_CPU_LORAS", "LMI", "engine.max_cpu_loras", values.count, _COUNT),
    Variable("OPTION_MAX_LORA_RANK", "LMI", "engine.max_lora_rank", values.lora_rank, "as the setting"),
    Variable("OPTION_DTYPE", "LMI", "engine.dtype", values.dtype, _DTYPE),
    Variable("DTYPE", "TGI", "engine.dtype", values.dtype, _DTYPE, beside_model=True),
    Variable("HF_AUTO_CAST_TYPE", "TGI", "engine.dtype", values.dtype, _DTYPE, kind="neuron"),
    Variable("OPTION_MAX_MODEL_LEN", "LMI", "engine.max_model_len", values.count, _COUNT),
    Variable("MAX_TOTAL_TOKENS", "TGI", "engine.max_model_len", values.count, _COUNT),
    Variable("MAX_INPUT_TOKENS", "TGI", "engine.max_prompt_tokens", values.count, _COUNT),
    Variable("MAX_INPUT_LENGTH", "TGI", "engine.max_prompt_tokens", values.count, _COUNT),
    Variable("OPTION_MAX_ROLLING_BATCH_SIZE", "LMI", "engine.max_num_seqs", values.count, _COUNT),
    Variable("OPTION_MAX_NUM_SEQS", "LMI", "engine.max_num_seqs", values.count, _COUNT),
    Variable("MAX_BATCH_SIZE", "TGI", "engine.max_num_seqs", values.count, _COUNT),
    Variable(
        "OPTION_TENSOR_PARALLEL_DEGREE",
        "LMI",
        "engine.tensor_parallel_size",
        values.count_or_max,
        f"{_COUNT}, or `max`",
    ),
    Variable(
        "TENSOR_PARALLEL_DEGREE", "LMI", "engine.tensor_parallel_size", values.count_or_max, f"{_COUNT}, or `max`"
    ),
    Variable("OPTION_TENSOR_PARALLEL_SIZE", "LMI", "engine.tensor_parallel_size", values.count, _COUNT),
    Variable("SM_NUM_GPUS", "TGI", "engine.tensor_parallel_size", values.count, _COUNT),
    Variable("NUM_SHARD", "TGI", "engine.tensor_parallel_size", values.count, _COUNT, beside_model=True),
    Variable("HF_NUM_CORES", "TGI", "engine.tensor_parallel_size", values.count, _COUNT, kind="neuron"),
    Variable("OPTION_GPU_MEMORY_UTILIZATION", "LMI", "engine.gpu_memory_utilization", values.share, _SHARE),
    Variable("CUDA_MEMORY_FRACTION", "TGI", "engine.gpu_memory_utilization", values.share, _SHARE, beside_model=True),
    Variable("OPTION_ENFORCE_EAGER", "LMI", "engine.enforce_eager", values.yes_or_no, "`true` or `false`"),
    Variable("OPTION_TOOL_CALL_PARSER", "LMI", "engine.tool_call_parser", values.text, "vLLM's name of a parser"),
    Variable("OPTION_MODEL_LOADING_TIMEOUT", "LMI", "engine.start_timeout_s", values.count, f"{_COUNT}, seconds"),
    Variable("SERVING_JOB_QUEUE_SIZE", "LMI", "admission.max_queue", values.count, _COUNT),
    Variable("MAX_CONCURRENT_REQUESTS", "TGI", "admission.max_requests", values.count, _COUNT),
    Variable("PORT", "TGI", "port", values.port, "0 to 65535"),
    Variable(
        "HOSTNAME",
        "TGI",
        "host",
        values.text,
        "IP address; a name, as shells and containers set it, is left alone",
        counts=values.is_address,
    ),
)

DEMANDS = (
    Demand("OPTION_ENABLE_LORA", "LMI", values.lora_on, "`true`", "Adapters are always served."),
    Demand(
        "OPTION_ROLLING_BATCH",
        "LMI",
        values.rolling_batch,
        "`auto`, `vllm`, `lmi-dist`, `disable`",
        "vLLM always batches by itself.",
    ),
)

_HUB = "huggingface-hub reads it itself, and the engine gets it"


def _as_argument(name: str, family: Family, argument: str, *, beside_model: bool = False) -> Unused:
    return Unused(name, family, f"give vLLM's `{argument}` in `engine.extra_args`", beside_model)


UNUSED = (
    _as_argument("OPTION_TRUST_REMOTE_CODE", "LMI", "--trust-remote-code"),
    _as_argument("HF_MODEL_TRUST_REMOTE_CODE", "LMI, TGI", "--trust-remote-code"),
    _as_argument("TRUST_REMOTE_CODE", "TGI", "--trust-remote-code", beside_model=True),
    _as_argument("OPTION_QUANTIZE", "LMI", "--quantization"),
    _as_argument("OPTION_QUANTIZATION", "LMI", "--quantization"),
    _as_argument("HF_MODEL_QUANTIZE", "TGI", "--quantization"),
    _as_argument("QUANTIZE", "TGI", "--quantization", beside_model=True),
    _as_argument("OPTION_MAX_ROLLING_BATCH_PREFILL_TOKENS", "LMI", "--max-num-batched-tokens"),
    _as_argument("OPTION_MAX_NUM_BATCHED_TOKENS", "LMI", "--max-num-batched-tokens"),
    _as_argument("MAX_BATCH_PREFILL_TOKENS", "TGI", "--max-num-batched-tokens"),
    _as_argument("OPTION_ENABLE_PREFIX_CACHING", "LMI", "--enable-prefix-caching"),
    _as_argument("OPTION_ENABLE_CHUNKED_PREFILL", "LMI", "--enable-chunked-prefill"),
    _as_argument("OPTION_FULLY_SHARDED_LORAS", "LMI", "--fully-sharded-loras"),
    _as_argument("OPTION_KV_CACHE_DTYPE", "LMI", "--kv-cache-dtype"),
    _as_argument("KV_CACHE_DTYPE", "TGI", "--kv-cache-dtype", beside_model=True),
    _as_argument("OPTION_TOKENIZER_MODE", "LMI", "--tokenizer-mode"),
    _as_argument("OPTION_SPECULATIVE_CONFIG", "LMI", "--speculative-config"),
    _as_argument("OPTION_REASONING_PARSER", "LMI", "--reasoning-parser"),
    _as_argument("OPTION_CHAT_TEMPLATE", "LMI", "--chat-template"),
    _as_argument("OPTION_LIMIT_MM_PER_PROMPT", "LMI", "--limit-mm-per-prompt"),
    _as_argument("OPTION_CPU_OFFLOAD_GB_PER_GPU", "LMI", "--cpu-offload-gb"),
    _as_argument("OPTION_PIPELINE_PARALLEL_DEGREE", "LMI", "--pipeline-parallel-size"),
    Unused("OPTION_ENABLE_AUTO_TOOL_CHOICE", "LMI", "it follows from `engine.tool_call_parser`"),
    Unused("OPTION_LORA_EXTRA_VOCAB_SIZE", "LMI", "vLLM takes no adapters with words of their own any more"),
    Unused("OPTION_ENGINE", "LMI", "the engine is always vLLM"),
    Unused("SERVING_LOAD_MODELS", "LMI", "the engine is always vLLM; name the model in `HF_MODEL_ID`"),
    Unused("OPTION_ENTRYPOINT", "LMI", "handlers of LMI's container are not here; vLLM answers"),
    Unused("OPTION_MPI_MODE", "LMI", "vLLM starts its processes by itself"),
    Unused("OPTION_ASYNC_MODE", "LMI", "every request is asynchronous here"),
    Unused("OPTION_PARALLEL_LOADING", "LMI", "replicas always start side by side; their number is `engine.replicas`"),
    Unused("SERVING_MIN_WORKERS", "LMI", "the number of model copies is `engine.replicas`"),
    Unused("SERVING_MAX_WORKERS", "LMI", "the number of model copies is `engine.replicas`"),
    Unused("OPTION_PREDICT_TIMEOUT", "LMI", "see `relay.first_byte_timeout_s` and `relay.idle_timeout_s`"),
    Unused("OPTION_OUTPUT_FORMATTER", "LMI", "callers ask for a stream or for a document"),
    Unused("OPTION_ENABLE_STREAMING", "LMI", "callers ask for a stream or for a document"),
    Unused("OPTION_BATCH_SIZE", "LMI", "vLLM always batches by itself"),
    Unused("SERVING_BATCH_SIZE", "LMI", "vLLM always batches by itself"),
    Unused("SERVING_MAX_BATCH_DELAY", "LMI", "vLLM always batches by itself"),
    Unused("OPTION_WAITING_STEPS", "LMI", "vLLM always batches by itself"),
    Unused("OPTION_TGI_COMPAT", "LMI", "TGI's interface is always served"),
    Unused("SHARDED", "TGI", "the number of accelerators is `engine.tensor_parallel_size`", beside_model=True),
    Unused("LORA_ADAPTERS", "TGI", "add adapters to the running gateway: `loramux adapters add`"),
    Unused("MAX_BATCH_TOTAL_TOKENS", "TGI", "vLLM measures how many tokens fit into memory"),
    Unused("MAX_WAITING_TOKENS", "TGI", "vLLM decides at each step who joins the batch"),
    Unused("WAITING_SERVED_RATIO", "TGI", "vLLM decides at each step who joins the batch"),
    Unused("MAX_BEST_OF", "TGI", "what one request may ask for is vLLM's to say"),
    Unused("MAX_STOP_SEQUENCES", "TGI", "what one request may ask for is vLLM's to say"),
    Unused("MAX_TOP_N_TOKENS", "TGI", "what one request may ask for is vLLM's to say"),
    Unused("SPECULATE", "TGI", "give vLLM's `--speculative-config` in `engine.extra_args`", beside_model=True),
    Unused("JSON_OUTPUT", "TGI", "the form of the log is `log.format`", beside_model=True),
    Unused("API_KEY", "TGI", "callers have keys of their own: `loramux keys create`", beside_model=True),
)

PASSED_ON = {"HF_TOKEN": _HUB, "HUGGING_FACE_HUB_TOKEN": _HUB, "HF_HOME": _HUB, "HF_ENDPOINT": _HUB}
"""Variables that need no setting, since those who need them read them; some are secrets, and none is ever shown."""
