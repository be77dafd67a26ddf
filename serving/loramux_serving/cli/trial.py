"""`loramux try`: the same prompt answered by the base and by adapters, side by side."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.columns import Columns
from rich.panel import Panel
from rich.text import Text

from loramux_serving.cli.gateway import LONG_ANSWER_S, Fault, Gateway, printable
from loramux_serving.cli.prompts import BUILT_IN, load_prompts
from loramux_serving.cli.session import Session

_AT_A_TIME = 8
_MOST_ADAPTERS = 4
"""Adapters that are tried where none is named: more do not fit side by side."""
_PIPE_COLUMNS = 120

Plan = Mapping[str, Sequence[str]]
"""By prompt, the models that answer it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is empty where `error` is not."""

    prompt: str
    model: str
    text: str = ""
    error: str = ""


def try_prompt(
    ctx: typer.Context,
    prompt: Annotated[
        str | None, typer.Argument(help="What to ask; without it, prompts made for each adapter.")
    ] = None,
    adapter: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Adapters to ask; repeatable.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, tokens.")] = 64,
    prompts: Annotated[
        Path | None,
        typer.Option(help="TOML file of prompts by adapter. Default: deploy/demo/prompts.toml, if there."),
    ] = None,
) -> None:
    """Ask the base and each adapter the same, and show the answers side by side."""
    session: Session = ctx.obj
    known = load_prompts(prompts)
    base, offered = _models(session.gateway)
    chosen = adapter or ([name for name in offered if name in known] or offered)[:_MOST_ADAPTERS]
    if not chosen:
        session.remark("No adapter answers yet; add one with `loramux adapters add`.")
    plan = plan_of(prompt, base, chosen, known)
    answers: list[Answer] = []
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        begun = {
            asked: [pool.submit(_ask, session.gateway, model, asked, max_tokens) for model in models]
            for asked, models in plan.items()
        }
        for asked, futures in begun.items():
            row = [future.result() for future in futures]
            answers += row
            if not session.as_json:
                _print_row(session, asked, row)
    if session.as_json:
        session.dump([asdict(answer) for answer in answers])
    if failed := [answer for answer in answers if answer.error]:
        raise Fault(f"{len(failed)} of {len(answers)} requests failed; {failed[0].model}: {failed[0].error}")


def plan_of(prompt: str | None, base: str, adapters: Sequence[str], known: Plan) -> Plan:
    """Who is asked what: everybody `prompt`, or, without it, each adapter what was made for it, and the base all of
    that. Pure."""
    if prompt is not None:
        return {prompt: [base, *adapters]}
    plan: dict[str, list[str]] = {}
    for name in adapters:
        for asked in known.get(name, BUILT_IN):
            plan.setdefault(asked, [base]).append(name)
    return plan or {asked: [base] for asked in BUILT_IN}


def _models(gateway: Gateway) -> tuple[str, list[str]]:
    """The base and the adapters that the key may call, aliases left out."""
    models = gateway.call("GET", "/v1/models")["data"]
    base = next((model["id"] for model in models if model["parent"] is None), None)
    if base is None:
        raise Fault("The key is not for the base, so there is nothing to compare with.")
    return base, [model["id"] for model in models if model["parent"] and model["root"] == model["id"]]


def _ask(gateway: Gateway, model: str, prompt: str, max_tokens: int) -> Answer:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    try:
        answer = gateway.call("POST", "/v1/chat/completions", body=body, answer_s=LONG_ANSWER_S)
        return Answer(prompt, model, text=answer["choices"][0]["message"]["content"] or "")
    except Fault as fault:
        return Answer(prompt, model, error=str(fault))


def _print_row(session: Session, prompt: str, row: Sequence[Answer]) -> None:
    out = session.out
    if not out.is_terminal:
        out.width = _PIPE_COLUMNS
    out.print(Text(printable(prompt), style="bold"))
    width = max(24, out.width // len(row) - 1)
    panels = [
        Panel(
            Text(printable(answer.error or answer.text.strip()), style="red" if answer.error else ""),
            title=Text(answer.model),
            title_align="left",
            width=width,
        )
        for answer in row
    ]
    out.print(Columns(panels, padding=(0, 1, 0, 0)))
