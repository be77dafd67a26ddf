"""`python -m loramux_serving.base`: make the default base ready, and print where it is.

The path goes to standard output, everything else to standard error. Exit status 1 with one sentence on failure.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from loramux_adapters.errors import LoramuxError
from loramux_serving.base.default import NAME, prepare_default_base


def main(
    cache: Annotated[Path, typer.Option(envvar="LORAMUX_CACHE", help="Directory for what can be made again.")] = Path(
        "~/.cache/loramux"
    ),
) -> None:
    """Unpack the default base model, unless it is there already, and print its directory."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn(NAME),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=1.0)
            path = prepare_default_base(
                cache.expanduser(),
                lambda phase, fraction: bar.update(task, description=phase, completed=fraction),
            )
    except LoramuxError as error:
        console.print(error.message, style="red", highlight=False)
        raise typer.Exit(1) from None
    print(path)


if __name__ == "__main__":
    typer.run(main)
