"""`loramux adapters …`: what a name leads to, and how near to the engine it is kept."""

from typing import Annotated, Any

import typer

from loramux_serving.cli import tables
from loramux_serving.cli.adapters import Name, Pin, check_weight
from loramux_serving.cli.gateway import LONG_ANSWER_S, path_of
from loramux_serving.cli.session import Session
from loramux_serving.cli.units import optional, places


def register(app: typer.Typer) -> None:
    """Put the commands under `app`."""
    for command in (promote, rollback, canary, pin, unpin, prefetch):
        app.command()(command)


def promote(ctx: typer.Context, name: Name, version: Annotated[int, typer.Argument(min=1)]) -> None:
    """Make a version live, once it is staged on every replica."""
    _move(ctx.obj, name, "promote", {"version": version})


def rollback(ctx: typer.Context, name: Name) -> None:
    """Go back to the version that was live before."""
    _move(ctx.obj, name, "rollback")


def canary(
    ctx: typer.Context,
    name: Name,
    version: Annotated[int | None, typer.Argument(min=1)] = None,
    weight: Annotated[float | None, typer.Argument(help="Its share of the requests, between 0 and 1.")] = None,
    end: Annotated[bool, typer.Option("--end", help="End the canary; all requests go to the live version.")] = False,
) -> None:
    """Send a share of the requests to another version, or end that."""
    if end:
        if version is not None:
            raise typer.BadParameter("--end takes no version and no weight.")
        _move(ctx.obj, name, "canary", {"version": None, "weight": 0.0})
        return
    if version is None or weight is None:
        raise typer.BadParameter("Give a version and a weight, or --end.")
    _move(ctx.obj, name, "canary", {"version": version, "weight": check_weight(weight)})


def pin(ctx: typer.Context, name: Name, tier: Pin) -> None:
    """Forbid demotion below a tier, and move it up to there."""
    _move(ctx.obj, name, "pin", {"tier": tier.value})


def unpin(ctx: typer.Context, name: Name) -> None:
    """Let it be demoted again."""
    _move(ctx.obj, name, "unpin")


def prefetch(ctx: typer.Context, name: Name, tier: Pin) -> None:
    """Move the live version up to a tier on every replica."""
    _move(ctx.obj, name, "prefetch", {"tier": tier.value})


def _move(session: Session, name: str, call: str, body: dict[str, Any] | None = None) -> None:
    view = session.gateway.call("POST", path_of("adapters", name, call), body=body, answer_s=LONG_ANSWER_S)
    facts = f"live {optional(view['live'])}, canary {tables.canary(view)}, pin {optional(view['pin'])}"
    session.show(view, f"{view['name']}: {facts}, tier {places(view['tiers'])}")
