"""Why an engine ended, told from the last lines of its output. Pure."""

import re
from collections.abc import Sequence

from loramux_adapters.model import Failure

_CONFIG_SIGNS = (
    "unrecognized arguments",
    "error: argument",
    "invalid choice",
    "validation error for",
    "No module named",
    "can not run",
    "does not appear to have a file named",
    "is not a valid model identifier",
    "not supported",
    "does not support LoRA",
    "Repo id must",
)
"""Words of argparse, Python, transformers and vLLM for a start that fails again in the same way."""
_ERROR_LINE = re.compile(r"\b(?:[A-Z]\w*(?:Error|Exception)\b|error:)")
_PREFIX = re.compile(r"^(?:\([^)]*pid=\d+\)\s*)?(?:ERROR \S+ \S+ \[[^\]]*\]\s*)?")
_LEASH = "leash: "
_CAUSE_ELSEWHERE = ("See root cause above", "Engine core initialization failed", "WorkerProc initialization failed")
_MAX_CHARS = 400


def explain(lines: Sequence[str]) -> Failure:
    """The most telling line of an engine's last ones: the last error that does not point to another, or the last
    line at all. `engine_config_invalid` where it looks like a fault of the settings, else `engine_failed`."""
    texts = [_PREFIX.sub("", line).strip() for line in lines]
    status = next((text.removeprefix(_LEASH) for text in reversed(texts) if text.startswith(_LEASH)), "")
    said = [text for text in texts if text and not text.startswith(f"{_LEASH}the engine")]
    errors = [text for text in said if _ERROR_LINE.search(text) and not any(sign in text for sign in _CAUSE_ELSEWHERE)]
    cause = (errors or said or ["it wrote nothing"])[-1][:_MAX_CHARS].removeprefix(_LEASH)
    told = status if status.startswith("the engine") else "the engine ended"
    wrong = any(sign in cause for sign in _CONFIG_SIGNS)
    return Failure(
        code="engine_config_invalid" if wrong else "engine_failed",
        message=f"{told[0].upper()}{told[1:]}: {cause}",
        retryable=not wrong,
    )
