"""Following an operation to its end, with a progress bar on a terminal."""

import time
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from loramux_serving.cli.gateway import Fault, path_of
from loramux_serving.cli.session import Session

POLL_S = 0.2
"""Pause between two looks at an operation."""

_ENDS = ("succeeded", "failed")


def conclude(session: Session, accepted: dict[str, Any], *, wait: bool) -> dict[str, Any] | None:
    """What a command that began an operation does next: with `wait` it follows the operation and returns its view;
    else it prints the operation's id and returns None. Raises `Fault` where the operation failed."""
    operation: dict[str, Any] = accepted["operation"]
    if not wait:
        session.show(accepted, operation["id"])
        return None
    ended = follow(session, operation)
    if session.as_json:
        session.dump(ended)
    succeeded(ended)
    return ended


def succeeded(operation: dict[str, Any]) -> None:
    """Raises `Fault` where the operation failed."""
    if operation["state"] == "failed":
        error = operation["error"] or {"message": "The operation failed.", "code": "internal_error"}
        raise Fault(error["message"], error["code"])


def follow(session: Session, operation: dict[str, Any]) -> dict[str, Any]:
    """The operation when it has ended. Raises `Fault`; the operation itself goes on, whoever stops watching."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[stage]}"), TimeElapsedColumn())
    hidden = session.as_json or not session.err.is_terminal
    with Progress(*columns, console=session.err, transient=True, disable=hidden) as bar:
        task = bar.add_task(_title(operation), total=1.0, stage="")
        while operation["state"] not in _ENDS:
            time.sleep(POLL_S)
            operation = _look(session, operation["id"])
            bar.update(task, completed=operation["progress"], stage=operation["stage"] or operation["state"])
    return operation


def _look(session: Session, operation_id: str) -> dict[str, Any]:
    try:
        operation: dict[str, Any] = session.gateway.call("GET", path_of("operations", operation_id))
    except Fault as fault:
        hint = f"{fault.message}; to look again: loramux operations show {operation_id} --wait"
        raise Fault(hint, fault.code) from fault
    return operation


def _title(operation: dict[str, Any]) -> str:
    version = f"@{operation['version']}" if operation["version"] else ""
    return f"{operation['kind'].replace('_', ' ')} {operation['adapter']}{version}"
