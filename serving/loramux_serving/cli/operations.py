"""`loramux operations`: long work that was acknowledged."""

from typing import Annotated

import typer

from loramux_serving.cli import tables
from loramux_serving.cli.gateway import path_of
from loramux_serving.cli.session import Session
from loramux_serving.cli.waiting import follow, succeeded

app = typer.Typer(help="Long work that was acknowledged.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Long work that was acknowledged."""


@app.command()
def show(
    ctx: typer.Context,
    operation_id: Annotated[str, typer.Argument(metavar="ID")],
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end; exit status 1 where it failed.")] = False,
) -> None:
    """How far an operation is, or how it ended."""
    session: Session = ctx.obj
    view = session.gateway.call("GET", path_of("operations", operation_id))
    if wait:
        view = follow(session, view)
    session.show(view, tables.operation(view))
    if wait:
        succeeded(view)
