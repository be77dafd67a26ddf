"""`loramux events`: what happens, as it happens."""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from loramux_serving.cli.gateway import path_of
from loramux_serving.cli.session import Session
from loramux_serving.cli.units import moment


def follow(
    ctx: typer.Context,
    after: Annotated[int | None, typer.Option(min=0, help="Show first what came after the event of this id.")] = None,
) -> None:
    """Follow the gateway's events, one a line, until you stop it."""
    session: Session = ctx.obj
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with session.gateway.lines(path_of("events"), headers) as lines:
        for event in parse(lines):
            if session.as_json:
                session.out.file.write(json.dumps(event, ensure_ascii=False) + "\n")
            else:
                session.out.print(line_of(event), soft_wrap=True)
            session.out.file.flush()


def parse(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The `data` of each server-sent event, which is one JSON object."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            yield json.loads("\n".join(data))
            data = []


def line_of(event: dict[str, Any]) -> str:
    name = event["adapter"] or ""
    subject = f"{name}@{event['version']}" if event["version"] else name
    details = " ".join(f"{key}={value}" for key, value in event["data"].items())
    return f"{moment(event['at'])}  {event['id']}  {event['type']}  {subject}  {details}".rstrip()
