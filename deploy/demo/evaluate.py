"""Measures the demo adapters against the base, greedy, in transformers: `python deploy/demo/evaluate.py`.

Writes `results.json`, and `RESULTS.md` from it. Adapters that are not named keep the numbers they had.
"""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from corpora.example import Example, read
from peft import PeftModel
from recipes import RECIPES
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track
from score import CHECKS, NOT_FOR_FRESH
from transformers import AutoModelForCausalLM, AutoTokenizer

from loramux_serving.base.default import prepare_default_base

DEMO = Path(__file__).parent
DATA = DEMO / "data"
ADAPTERS = DEMO / "adapters"
RESULTS = DEMO / "results.json"
TABLE = DEMO / "RESULTS.md"
NEW_TOKENS = 64
BATCH = 24


def evaluate(names: list[str], base: Path, training: Mapping[str, Any] | None = None) -> None:
    """Score `names` on their held-out and hand-written prompts, keep the numbers and print the whole table.

    `training` holds what `train.py` knows of the runs that made these weights.
    """
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names:
        entry = results.setdefault(name, {})
        entry["bytes"] = (ADAPTERS / name / "adapter_model.safetensors").stat().st_size
        entry["rank"] = RECIPES[name].rank
        entry.update({"training": training[name]} if training else {})
        entry["scores"] = measure(name, base)
    ordered = {name: results[name] for name in RECIPES if name in results}
    RESULTS.write_text(json.dumps(ordered, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    table = markdown(ordered)
    TABLE.write_text(table, encoding="utf-8")
    Console().print(Markdown(table))


def measure(name: str, base: Path) -> list[dict[str, Any]]:
    """One row per set and check: how many answers of the base and of the adapter pass it."""
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), ADAPTERS / name
    ).eval()
    corpus = read(DATA / name)
    rows: list[dict[str, Any]] = []
    for label, examples in (("held-out", corpus.heldout), ("written by hand", corpus.fresh)):
        with model.disable_adapter():
            plain = answers(model, tokenizer, examples, f"{name}: base, {label}")
        adapted = answers(model, tokenizer, examples, f"{name}: adapter, {label}")
        rows += [
            {
                "prompts": label,
                "check": check,
                "of": len(examples),
                "base": sum(passes(a, e.answer) for a, e in zip(plain, examples, strict=True)),
                "adapter": sum(passes(a, e.answer) for a, e in zip(adapted, examples, strict=True)),
            }
            for check, passes in CHECKS[name].items()
            if label == "held-out" or (name, check) not in NOT_FOR_FRESH
        ]
    return rows


def answers(model: Any, tokenizer: Any, examples: tuple[Example, ...], label: str) -> list[str]:
    texts: list[str] = []
    for start in track(range(0, len(examples), BATCH), description=label):
        conversations = [example.question() for example in examples[start : start + BATCH]]
        batch = tokenizer.apply_chat_template(
            conversations, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            output = model.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False)
        prompt_length = batch["input_ids"].shape[1]
        texts += tokenizer.batch_decode(output[:, prompt_length:], skip_special_tokens=True)
    return texts


def markdown(results: Mapping[str, Any]) -> str:
    lines = [
        "| adapter | size | prompts | check | base | with the adapter |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in results.items():
        for row in entry["scores"]:
            size = f"rank {entry['rank']}, {entry['bytes'] / 1e6:.1f} MB"
            lines.append(
                f"| `{name}` | {size} | {row['of']} {row['prompts']} | {row['check']} "
                f"| {row['base'] / row['of']:.0%} | {row['adapter'] / row['of']:.0%} |"
            )
    return "\n".join(lines) + "\n"


def add_base_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, help="checkpoint of the base; default: unpack it, or find it unpacked")


def base_of(arguments: argparse.Namespace) -> Path:
    cache = Path(os.environ.get("LORAMUX_CACHE", "~/.cache/loramux")).expanduser()
    base: Path = arguments.base or prepare_default_base(cache)
    return base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", action="append", choices=RECIPES, help="default: all; may be repeated")
    add_base_argument(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    evaluate(arguments.adapter or list(RECIPES), base_of(arguments))


if __name__ == "__main__":
    main()
