"""`loramux replicas`: the engines."""

import time
from typing import Annotated, Any

import typer

from loramux_serving.cli import tables
from loramux_serving.cli.gateway import Fault, path_of
from loramux_serving.cli.session import Session
from loramux_serving.cli.waiting import POLL_S

app = typer.Typer(help="The engines that hold the base.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The replica's id.")]


@app.command("list")
def list_replicas(ctx: typer.Context) -> None:
    """Every replica: state, requests under way, restarts, adapters that it holds."""
    session: Session = ctx.obj
    answer = session.gateway.call("GET", path_of("replicas"))
    session.show(answer, tables.replicas(answer["replicas"], time.time()))


@app.command()
def scale(
    ctx: typer.Context,
    count: Annotated[int, typer.Argument(metavar="COUNT", min=0, help="How many are to run; 0: none.")],
    wait: Annotated[bool, typer.Option("--wait", help="Until they are ready, and the others have stopped.")] = False,
) -> None:
    """Start or stop replicas. One that stops finishes its requests first."""
    session: Session = ctx.obj
    fleet = session.gateway.call("PUT", path_of("replicas"), body={"wanted": count})
    while wait and not _settled(fleet, count):
        time.sleep(POLL_S)
        fleet = session.gateway.call("GET", path_of("replicas"))
    session.show(fleet, f"{fleet['wanted']} of at most {fleet['limit']} wanted, {fleet['ready']} ready")


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


def _settled(fleet: dict[str, Any], count: int) -> bool:
    """Raises `Fault` where somebody else wants another number by now, so that it would be waited for in vain."""
    if fleet["wanted"] != count:
        raise Fault(f"{fleet['wanted']} replicas are wanted now, not {count}.")
    stopped = sum(view["state"] == "stopped" for view in fleet["replicas"])
    return bool(fleet["ready"] == count and stopped == fleet["limit"] - count)
