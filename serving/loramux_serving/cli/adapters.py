"""`loramux adapters`: look at adapters; add, update and delete them."""

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from loramux_serving.cli import tables
from loramux_serving.cli.gateway import path_of
from loramux_serving.cli.session import Session
from loramux_serving.cli.upload import body_of
from loramux_serving.cli.waiting import conclude

app = typer.Typer(help="Look at adapters; add, update, roll back and delete them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The adapter's name.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end, or print the operation's id.")]
Source = Annotated[str, typer.Argument(help="A path that the gateway may read, s3://bucket/key, or hf://org/repo.")]
Live = Annotated[bool, typer.Option("--promote/--no-promote", help="Make the version live when it is ready.")]


class State(StrEnum):
    READY = "ready"
    ARRIVING = "arriving"
    FAILED = "failed"
    DELETING = "deleting"


class Tier(StrEnum):
    GPU = "gpu"
    CPU = "cpu"
    DISK = "disk"
    REMOTE = "remote"


class Pin(StrEnum):
    GPU = "gpu"
    CPU = "cpu"
    DISK = "disk"


@app.command("list")
def list_adapters(
    ctx: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only adapters in this state.")] = None,
    tier: Annotated[Tier | None, typer.Option(help="Only adapters whose best tier is this one.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Adapters to ask for at a time.")] = 100,
    every: Annotated[bool, typer.Option("--all", help="Ask for all pages.")] = False,
) -> None:
    """Every adapter: live version, state, tier, size, use."""
    session: Session = ctx.obj
    params: dict[str, str | int] = {"limit": limit}
    params |= {"state": state.value} if state else {}
    params |= {"tier": tier.value} if tier else {}
    page: dict[str, Any] = session.gateway.call("GET", path_of("adapters"), params=params)
    found = list(page["adapters"])
    while every and page["next_cursor"] is not None:
        page = session.gateway.call("GET", path_of("adapters"), params={**params, "cursor": page["next_cursor"]})
        found += page["adapters"]
    session.show({**page, "adapters": found}, tables.adapters(found, time.time()))
    if len(found) < page["total"]:
        session.remark(f"{len(found)} of {page['total']}; --all shows the rest")


@app.command()
def describe(ctx: typer.Context, name: Name) -> None:
    """One adapter and its versions, with why one failed."""
    session: Session = ctx.obj
    view = session.gateway.call("GET", path_of("adapters", name))
    session.show(view, tables.adapter(view, time.time()))


@app.command()
def add(
    ctx: typer.Context,
    name: Name,
    source: Source,
    pin: Annotated[Pin | None, typer.Option(help="Forbid demotion below this tier.")] = None,
    promote: Live = True,
    wait: Wait = True,
) -> None:
    """Register an adapter from a path, S3 or a hub."""
    session: Session = ctx.obj
    body = {"name": name, "source": absolute(source), "promote": promote, "pin": pin.value if pin else None}
    _arrived(session, session.gateway.call("POST", path_of("adapters"), body=body), wait=wait)


@app.command()
def update(
    ctx: typer.Context,
    name: Name,
    source: Source,
    promote: Live = True,
    canary: Annotated[
        float | None, typer.Option(metavar="WEIGHT", help="Start a canary with this share of the requests.")
    ] = None,
    wait: Wait = True,
) -> None:
    """Add a version and make it live, without a request failing or waiting."""
    if canary is not None and not promote:
        raise typer.BadParameter("--canary and --no-promote exclude each other.")
    session: Session = ctx.obj
    body = {"source": absolute(source), "promote": check_weight(canary) if canary is not None else promote}
    _arrived(session, session.gateway.call("POST", path_of("adapters", name, "versions"), body=body), wait=wait)


@app.command()
def upload(
    ctx: typer.Context,
    name: Name,
    path: Annotated[Path, typer.Argument(help="A .tar.gz or .zip archive, or a directory.", exists=True)],
    promote: Live = True,
    wait: Wait = True,
) -> None:
    """Send an adapter's files from this machine: adds the adapter, or updates it."""
    session: Session = ctx.obj
    with body_of(path, session) as body:
        params: dict[str, str | int] = {"promote": "true" if promote else "false"}
        accepted = session.gateway.send("PUT", path_of("adapters", name, "artifact"), params=params, **body)
    _arrived(session, accepted, wait=wait)


@app.command()
def delete(
    ctx: typer.Context,
    name: Name,
    version: Annotated[int | None, typer.Option(min=1, help="Delete this version only.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = True,
) -> None:
    """Delete an adapter, or one of its versions: requests under way finish, then weights and files go."""
    session: Session = ctx.obj
    what = f"adapter {name}" if version is None else f"version {version} of {name}"
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("There is no terminal to ask on; give --yes.")
        typer.confirm(f"Delete {what}?", abort=True, err=True)
    rest = () if version is None else ("versions", version)
    accepted = session.gateway.call("DELETE", path_of("adapters", name, *rest))
    if conclude(session, accepted, wait=wait) is not None and not session.as_json:
        session.out.print(f"{what} is deleted")


def absolute(source: str) -> str:
    """A path that exists here, made absolute, as the gateway wants it; anything else as it is."""
    if ":" in source:
        return source
    path = Path(source).expanduser()
    return str(path.absolute()) if path.exists() else source


def check_weight(weight: float) -> float:
    if not 0.0 < weight < 1.0:
        raise typer.BadParameter("The weight of a canary is a share between 0 and 1.")
    return weight


def _arrived(session: Session, accepted: dict[str, Any], *, wait: bool) -> None:
    operation = conclude(session, accepted, wait=wait)
    if operation is None or session.as_json:
        return
    view = session.gateway.call("GET", path_of("adapters", operation["adapter"]))
    number = operation["version"]
    canary = view["canary"]
    if view["live"] == number:
        standing = "is live"
    elif canary and canary["version"] == number:
        standing = f"is ready; it takes {canary['weight']:.0%} of the requests"
    else:
        standing = f"is ready; live is {view['live'] or 'none'}"
    session.out.print(f"{operation['adapter']} version {number} {standing}")
