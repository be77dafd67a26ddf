"""`loramux bench scenarios`: what there is to run."""

from rich.table import Table

from loramux_bench.cli.console import answers
from loramux_bench.scenario import available, load_scenario


def scenarios() -> None:
    """List the scenarios that come with the bench."""
    table = Table(box=None, pad_edge=False)
    for column in ("name", "about", "file"):
        table.add_column(column, overflow="fold")
    for name, path in available().items():
        table.add_row(name, load_scenario(name).about, str(path))
    answers().print(table)
