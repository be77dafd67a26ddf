"""What `loramux try` asks where nobody gave a prompt."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from loramux_serving.cli.gateway import Fault

DEMO = Path("deploy/demo/prompts.toml")
"""In a checkout, under the current directory."""

BUILT_IN = (
    "What is the capital of France?",
    "How many customers live in Lyon?",
    "I was charged twice for my order. Please hurry.",
)


def load_prompts(path: Path | None) -> Mapping[str, Sequence[str]]:
    """Prompts by adapter: of `path`, else of the demo where it is, else none. The file reads
    `[adapters.<name>]` with `prompts = […]`. Raises `Fault`."""
    if path is None:
        if not DEMO.is_file():
            return {}
        path = DEMO
    try:
        adapters = tomllib.loads(path.read_text("utf-8"))["adapters"]
        return {name: [str(prompt) for prompt in entry["prompts"]] for name, entry in adapters.items()}
    except OSError as error:
        raise Fault(f"{path} can not be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Fault(f"{path} is no TOML: {error}.") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise Fault(f"{path} must have tables [adapters.<name>] with prompts = [...].") from error
