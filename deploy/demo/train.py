"""Trains the demo adapters with PEFT on the default base: `python deploy/demo/train.py --adapter pirate`.

The loss is taken on the answer only, in the base's chat template. One seed, one thread count and one kind of
processor give the same weights again. On two idle CPU cores an adapter takes three minutes.
"""

import argparse
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from corpora.example import Example, read
from evaluate import ADAPTERS, DATA, add_base_argument, base_of, evaluate
from peft import LoraConfig, get_peft_model
from recipes import RECIPES, Recipe
from rich.progress import Progress
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from loramux_serving.base.default import NAME as BASE_NAME

IGNORED = -100


@dataclass(frozen=True)
class Sample:
    """Token ids of a whole conversation, and the same with `IGNORED` where no loss is taken."""

    ids: torch.Tensor
    labels: torch.Tensor


def train(name: str, recipe: Recipe, base: Path, seed: int) -> float:
    """Train one adapter and save it in `adapters/<name>`. Returns the mean loss of the last twenty steps."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    samples = [encode(tokenizer, example) for example in read(DATA / name).train]
    model = get_peft_model(
        # The engine holds the base in bfloat16 too, so the adapter is trained against the same rounding.
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16),
        LoraConfig(
            r=recipe.rank,
            lora_alpha=2 * recipe.rank,
            target_modules=list(recipe.modules),
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )
    batches = shuffled_batches(samples, recipe, random.Random(seed))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=len(batches), pct_start=0.1
    )
    losses: list[float] = []
    model.train()
    with Progress() as progress:
        task = progress.add_task(name, total=len(batches))
        for batch in batches:
            loss = answer_loss(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            progress.update(task, advance=1, description=f"{name} loss {losses[-1]:.3f}")
            if len(losses) % 20 == 0:
                progress.console.print(f"{name} step {len(losses)}: loss {mean(losses[-20:]):.4f}")
    save(model, ADAPTERS / name)
    return mean(losses[-20:])


def encode(tokenizer: Any, example: Example) -> Sample:
    prompt = tokenizer.apply_chat_template(example.question(), add_generation_prompt=True, return_dict=False)
    answer = [*tokenizer.encode(example.answer), tokenizer.eos_token_id]
    return Sample(torch.tensor(prompt + answer), torch.tensor([IGNORED] * len(prompt) + answer))


def shuffled_batches(samples: list[Sample], recipe: Recipe, rng: random.Random) -> list[list[Sample]]:
    """The batches of all epochs. Samples of like length share a batch, so that little of it is padding."""
    batches: list[list[Sample]] = []
    for _ in range(recipe.epochs):
        order = rng.sample(samples, len(samples))
        pools = [order[i : i + 8 * recipe.batch] for i in range(0, len(order), 8 * recipe.batch)]
        epoch = [
            pool[i : i + recipe.batch]
            for pool in (sorted(pool, key=lambda sample: len(sample.ids)) for pool in pools)
            for i in range(0, len(pool), recipe.batch)
        ]
        rng.shuffle(epoch)
        batches += epoch
    return batches


def answer_loss(model: Any, batch: list[Sample]) -> torch.Tensor:
    ids = pad_sequence([sample.ids for sample in batch], batch_first=True)
    labels = pad_sequence([sample.labels for sample in batch], batch_first=True, padding_value=IGNORED)
    mask = pad_sequence([torch.ones_like(sample.ids) for sample in batch], batch_first=True)
    causal = model.get_base_model()
    states = causal.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    taken = targets != IGNORED
    # The head is a fifth of the work: applied only where an answer is.
    return cross_entropy(causal.lm_head(states[taken]).float(), targets[taken])


def save(model: Any, folder: Path) -> None:
    """`adapter_model.safetensors` in bfloat16 and `adapter_config.json` as PEFT writes it, less what varies."""
    for weight in model.parameters():
        weight.data = weight.data.to(torch.bfloat16)
    model.peft_config["default"].base_model_name_or_path = BASE_NAME
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "adapter_model.safetensors").chmod(0o644)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", action="append", choices=RECIPES, help="default: all; may be repeated")
    parser.add_argument("--seed", type=int, default=20260101)
    add_base_argument(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    base = base_of(arguments)
    for name in arguments.adapter or RECIPES:
        started = time.monotonic()
        loss = train(name, RECIPES[name], base, arguments.seed)
        training = {"loss": round(loss, 4), "seconds": round(time.monotonic() - started), "seed": arguments.seed}
        evaluate([name], base, {name: training})


if __name__ == "__main__":
    main()
