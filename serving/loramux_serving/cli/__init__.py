"""The command line: thin commands over the admin interface. Knows nothing of the gateway's inside."""

import os
from typing import Annotated

import typer

from loramux_serving.cli import adapters, aliases, events, keys, operations, replicas, traffic, trial
from loramux_serving.cli.gateway import Gateway
from loramux_serving.cli.root import RootGroup
from loramux_serving.cli.serve import serve
from loramux_serving.cli.session import Session, admin_key, default_url
from loramux_serving.cli.top import top

app = typer.Typer(
    name="loramux",
    cls=RootGroup,
    help="Serve hundreds of LoRA adapters on one base model, and look after them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
traffic.register(adapters.app)
for name, part in (
    ("adapters", adapters.app),
    ("aliases", aliases.app),
    ("keys", keys.app),
    ("operations", operations.app),
    ("replicas", replicas.app),
):
    app.add_typer(part, name=name)
app.command("serve")(serve)
app.command("try")(trial.try_prompt)
app.command("events")(events.follow)
app.command("top")(top)


@app.callback()
def connect(
    ctx: typer.Context,
    url: Annotated[
        str,
        typer.Option(
            envvar="LORAMUX_URL",
            help="The gateway's address. Default: LORAMUX_HOST and LORAMUX_PORT (or PORT), else http://127.0.0.1:8080.",
            show_default=False,
        ),
    ] = "",
    key: Annotated[
        str,
        typer.Option(
            envvar="LORAMUX_ADMIN_KEY",
            help="An admin key. Default: what LORAMUX_HOME/admin.key holds.",
            show_default=False,
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the gateway's JSON, for scripts.")] = False,
) -> None:
    address = url or default_url(os.environ)
    # Tests hand an httpx transport in as the context's object.
    gateway = Gateway(address, lambda: key or admin_key(os.environ), transport=ctx.obj)
    ctx.obj = Session(gateway, as_json=as_json)


def main() -> None:
    """The script `loramux`. Exit status 1 for what failed, 2 for a command that was not understood."""
    app()
