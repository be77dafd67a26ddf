"""`loramux adapters …`: what a name leads to, and how near to the engine it is kept."""

from enum import StrEnum
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


class Sticky(StrEnum):
    REQUEST = "request"
    KEY = "key"


def canary(
    ctx: typer.Context,
    name: Name,
    version: Annotated[int | None, typer.Argument(min=1)] = None,
    weight: Annotated[float | None, typer.Option(help="Its share of the requests, between 0 and 1.")] = None,
    sticky: Annotated[Sticky, typer.Option(help="What draws: each request, or the caller's key.")] = Sticky.REQUEST,
    max_error_rate: Annotated[
        float | None, typer.Option(metavar="SHARE", help="End it where more of its requests fail.")
    ] = None,
    max_p95: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="End it where the p95 of its durations is longer.")
    ] = None,
    max_p95_ratio: Annotated[
        float | None, typer.Option(metavar="RATIO", help="End it where that is more times the live version's p95.")
    ] = None,
    promote_after: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Make it live after this time, if its limits hold.")
    ] = None,
    window: Annotated[float | None, typer.Option(metavar="SECONDS", help="Judge by the last seconds; 300.")] = None,
    min_requests: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Judge by so many requests at least; 50.")
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="End the canary; all requests go to the live version.")] = False,
) -> None:
    """Send a share of the requests to another version, or end that; with limits it ends by itself."""
    given = {
        "window_s": window,
        "min_requests": min_requests,
        "max_error_rate": max_error_rate,
        "max_p95_s": max_p95,
        "max_p95_ratio": max_p95_ratio,
        "promote_after_s": promote_after,
    }
    rule = {name: value for name, value in given.items() if value is not None}
    if end:
        if version is not None or weight is not None or rule:
            raise typer.BadParameter("--end takes no version, no weight and no limits.")
        _move(ctx.obj, name, "canary", {"version": None})
        return
    if version is None or weight is None:
        raise typer.BadParameter("Give a version and --weight, or --end.")
    body = {"version": version, "weight": check_weight(weight), "sticky": sticky.value, "rule": rule or None}
    _move(ctx.obj, name, "canary", body)


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
