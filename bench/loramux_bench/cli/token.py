"""`loramux bench token`: LLMPerf's command line and files."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loramux_bench.cli.console import answers, remarks
from loramux_bench.cli.progress import LiveView
from loramux_bench.cli.run import show
from loramux_bench.launch import Interrupted, launch
from loramux_bench.load.llmperf_flags import TokenFlags
from loramux_bench.load.llmperf_flags import scenario as scenario_of
from loramux_bench.results.groups import span
from loramux_bench.results.llmperf import make_room, write
from loramux_bench.run_dir import RunDir


def token(
    model: Annotated[str, typer.Option(help="The model to ask for.")],
    mean_input_tokens: Annotated[int, typer.Option(help="Of the prompts.")] = 550,
    stddev_input_tokens: Annotated[int, typer.Option(help="Of the prompts.")] = 150,
    mean_output_tokens: Annotated[int, typer.Option(help="max_tokens of the requests.")] = 150,
    stddev_output_tokens: Annotated[int, typer.Option(help="Of max_tokens.")] = 80,
    num_concurrent_requests: Annotated[int, typer.Option(min=1, help="At a time.")] = 10,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds after which no request is sent.")] = 90,
    max_num_completed_requests: Annotated[int, typer.Option(min=1, help="After so many it ends.")] = 10,
    additional_sampling_params: Annotated[str, typer.Option(help="JSON, sent with each request.")] = "{}",
    results_dir: Annotated[str, typer.Option(help="Where the two files go. Empty: none are written.")] = "",
    llm_api: Annotated[
        str, typer.Option(help="openai (OPENAI_API_BASE, OPENAI_API_KEY), litellm, sagemaker, …")
    ] = "openai",
    metadata: Annotated[str, typer.Option(help="key=value,key=value: goes into the summary.")] = "",
    tokenizer: Annotated[
        str, typer.Option(help="The model's tokenizer.json. Default: lengths are set by the endpoint's usage.")
    ] = "",
    runs: Annotated[Path, typer.Option(help="Where the run's own directory goes, with its report.")] = Path("results"),
) -> None:
    """LLMPerf's token benchmark: takes its flags and writes its two files. --tokenizer and --runs are ours."""
    flags = TokenFlags(
        model=model,
        mean_input_tokens=mean_input_tokens,
        stddev_input_tokens=stddev_input_tokens,
        mean_output_tokens=mean_output_tokens,
        stddev_output_tokens=stddev_output_tokens,
        num_concurrent_requests=num_concurrent_requests,
        timeout_s=timeout,
        max_num_completed_requests=max_num_completed_requests,
        additional_sampling_params=additional_sampling_params,
        results_dir=results_dir,
        llm_api=llm_api,
        metadata=metadata,
    )
    scenario = scenario_of(flags)
    if tokenizer:
        prompts = scenario.prompts.model_copy(update={"tokenizer": tokenizer})
        scenario = scenario.model_copy(update={"prompts": prompts})
    if flags.results_dir:
        make_room(Path(flags.results_dir))  # refused now, not after the load
    console = answers()
    try:
        with LiveView(scenario, remarks()) as view:
            run = launch(scenario, runs, view=view)
    except Interrupted as interrupted:
        _write(interrupted.run, flags, console)
        raise
    _write(run, flags, console)


def _write(run: RunDir, flags: TokenFlags, console: Console) -> None:
    if flags.results_dir and run.info().started_at:
        records = list(run.requests())
        # The report's own wall time: a run's `ended_s` is later, by what it takes to notice that the load has ended.
        from_s, to_s = span([record for record in records if not record.warmup])
        written = write(Path(flags.results_dir), flags, records, elapsed_s=to_s - from_s, at=time.time())
        console.print(f"{written.summary}\n{written.individual_responses}", soft_wrap=True, markup=False)
    show(run, console)
