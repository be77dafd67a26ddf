"""`loramux aliases`: other names for adapters and versions."""

from typing import Annotated

import typer

from loramux_serving.cli import tables
from loramux_serving.cli.gateway import path_of
from loramux_serving.cli.session import Session

app = typer.Typer(help="Other names for adapters and versions.", no_args_is_help=True)

Alias = Annotated[str, typer.Argument(help="The alias.")]


@app.command("list")
def list_aliases(ctx: typer.Context) -> None:
    """Every alias, and what it leads to."""
    session: Session = ctx.obj
    answer = session.gateway.call("GET", path_of("aliases"))
    session.show(answer, tables.aliases(answer["aliases"]))


@app.command("set")
def set_alias(
    ctx: typer.Context,
    name: Alias,
    adapter: Annotated[str, typer.Argument(help="The adapter that it leads to.")],
    version: Annotated[int | None, typer.Option(min=1, help="One version; without it, whatever is live.")] = None,
) -> None:
    """Make an alias, or lead it elsewhere."""
    session: Session = ctx.obj
    view = session.gateway.call("PUT", path_of("aliases", name), body={"adapter": adapter, "version": version})
    session.show(view, f"{view['name']} leads to {view['adapter']}@{view['version'] or 'live'}")


@app.command()
def delete(ctx: typer.Context, name: Alias) -> None:
    """Take an alias away."""
    session: Session = ctx.obj
    session.gateway.call("DELETE", path_of("aliases", name))
    session.show({"deleted": name}, f"alias {name} is deleted")
