"""`loramux keys`: callers' keys."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from loramux_serving.cli import tables
from loramux_serving.cli.gateway import path_of
from loramux_serving.cli.session import Session

app = typer.Typer(help="Callers' keys.", no_args_is_help=True)


class Role(StrEnum):
    INFERENCE = "inference"
    ADMIN = "admin"


@app.command()
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose key it is; shown in lists and logs.")],
    role: Annotated[Role, typer.Option(help="What it may do.")] = Role.INFERENCE,
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Names that it may call, as shell patterns; repeatable.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    aws: Annotated[
        bool,
        typer.Option("--aws", help="An access key id and a secret to sign requests with, for SageMaker's clients."),
    ] = False,
) -> None:
    """Make a key. Its secret goes to standard output, and is shown only this once: with --aws as two lines that set
    what AWS' SDKs read from the environment."""
    session: Session = ctx.obj
    body = {
        "name": name,
        "role": role.value,
        "adapters": adapter or [],
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "aws": aws,
    }
    answer = session.gateway.call("POST", path_of("keys"), body=body)
    session.remark(f"key {answer['id']}; the secret is shown only now:")
    session.show(answer, _for_environment(answer) if aws else answer["key"])


@app.command("list")
def list_keys(ctx: typer.Context) -> None:
    """Every key, revoked ones too; never a secret."""
    session: Session = ctx.obj
    answer = session.gateway.call("GET", path_of("keys"))
    session.show(answer, tables.keys(answer["keys"]))


@app.command()
def revoke(ctx: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Refuse a key from now on."""
    session: Session = ctx.obj
    view = session.gateway.call("DELETE", path_of("keys", key_id))
    session.show(view, f"key {view['id']} ({view['name']}) is revoked")


def _for_environment(answer: dict[str, Any]) -> str:
    return f"AWS_ACCESS_KEY_ID={answer['access_key_id']}\nAWS_SECRET_ACCESS_KEY={answer['secret_access_key']}"
