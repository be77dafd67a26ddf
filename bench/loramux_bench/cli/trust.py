"""`loramux bench trust`: the bench measures itself."""

import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from loramux_bench.cli.console import answers
from loramux_bench.cli.output import make_room
from loramux_bench.errors import BenchError
from loramux_bench.trust import peer
from loramux_bench.trust.gates import Try, try_gate
from loramux_bench.trust.rounds import Round, run_round

_DEFAULT_TOKENIZER = Path("~/.cache/loramux/bases/SmolLM2-135M-Instruct")


class NotTrue(BenchError):
    """The bench's figures are not those of the mock, on a machine that had the time."""

    exit_status = 1


def trust(
    streams: Annotated[list[int], typer.Option(min=1, help="How many at a time; a round for each.")] = [1, 16, 128],  # noqa: B006
    tokenizer: Annotated[
        Path, typer.Option(help="What the other tool makes prompts with; without it, it is left out.")
    ] = _DEFAULT_TOKENIZER,
    gate_tries: Annotated[
        int, typer.Option(min=0, help="Also try the gate so often on equal mocks, and on one slower by 10 %.")
    ] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the rounds as JSON.")] = None,
) -> None:
    """Measure a mock endpoint of known timing, and hold the figures against what the mock says that it did, and against
    those of vLLM's own `bench serve` where vLLM is installed."""
    console = answers()
    if output is not None:
        make_room(output)
    at_hand = tokenizer.expanduser() if peer.available() and tokenizer.expanduser().exists() else None
    if at_hand is None:
        console.print("No peer: vLLM or the tokenizer is not here.")
    with tempfile.TemporaryDirectory() as scratch:
        rounds = []
        for count in streams:
            found = run_round(count, Path(scratch), tokenizer=at_hand)
            rounds.append(found)
            console.print(_table(found))
            for sentence in found.limits:
                console.print(f"In doubt: {sentence}")
        tries = []
        for number in range(gate_tries):
            for slow in (1.0, 1.1):
                tries.append(try_gate(slow, number, Path(scratch) / f"gate-{number}-{slow}"))
                console.print(_said(tries[-1]))
    if tries:
        right = {slow: sum(one.right for one in tries if one.slow == slow) for slow in (1.0, 1.1)}
        console.print(
            f"Gate: {right[1.0]} of {gate_tries} equal pairs passed, {right[1.1]} of {gate_tries} slowdowns caught."
        )
    if output is not None:
        content = msgspec.json.encode({"rounds": rounds, "tries": tries})
        output.write_bytes(msgspec.json.format(content, indent=2))
    if not all(one.right for one in tries):
        raise NotTrue("The gate was wrong, or undecided.")
    if any(not found.holds and not found.limits for found in rounds):
        raise NotTrue("Figures differ by more than 2 % and 1 ms, and nothing was short of time.")


def _said(found: Try) -> str:
    ratios = ", ".join(f"{name} {ratio:.3f}" for name, ratio in found.ratios.items())
    return f"gate, candidate at {found.slow:g}: {found.outcome} ({ratios})"


def _table(found: Round) -> Table:
    mark = "within 2 % or 1 ms" if found.holds else "NOT within 2 % or 1 ms"
    title = f"{found.streams} streams, {found.requests} requests, {found.errors} errors: {mark}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("figure", "mock", "bench", "off"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    if found.peer:
        table.add_column("vLLM bench serve", justify="right")
    for figure in found.figures:
        name = f"{figure.name} {figure.statistic}".strip()
        scale, digits = (1000.0, 2) if figure.unit == "s" else (1.0, 2)
        cells = [f"{figure.mock * scale:.{digits}f}", f"{figure.bench * scale:.{digits}f}", f"{figure.off:+.2%}"]
        if found.peer:
            other = found.peer.get(name)
            cells.append("" if other is None else f"{other * scale:.{digits}f}")
        table.add_row(f"{name}, ms" if figure.unit == "s" else name, *cells)
    return table
