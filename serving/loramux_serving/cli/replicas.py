"""`loramux replicas`: the engines."""

import time
from typing import Annotated

import typer

from loramux_serving.cli import tables
from loramux_serving.cli.gateway import path_of
from loramux_serving.cli.session import Session

app = typer.Typer(help="The engines that hold the base.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The replica's id.")]


@app.command("list")
def list_replicas(ctx: typer.Context) -> None:
    """Every replica: state, requests under way, restarts, adapters that it holds."""
    session: Session = ctx.obj
    answer = session.gateway.call("GET", path_of("replicas"))
    session.show(answer, tables.replicas(answer["replicas"], time.time()))


@app.command()
def drain(ctx: typer.Context, replica: Id) -> None:
    """Give a replica no further requests; those under way finish."""
    _turn(ctx.obj, replica, "drain")


@app.command()
def undrain(ctx: typer.Context, replica: Id) -> None:
    """Let a replica take requests again."""
    _turn(ctx.obj, replica, "undrain")


def _turn(session: Session, replica: str, call: str) -> None:
    view = session.gateway.call("POST", path_of("replicas", replica, call))
    session.show(view, f"{view['id']} is {view['state']}, {view['outstanding']} requests under way")
