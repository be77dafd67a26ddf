"""The root of the commands: where global options may stand, and how a failure ends."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from loramux_adapters.errors import LoramuxError
from loramux_serving.cli.gateway import Fault

_FLAGS = ("--json",)
_VALUED = ("--url", "--key")
_OWN_OPTIONS = ("serve",)
"""Commands that talk to no gateway: what follows their name is theirs alone."""


def global_first(args: list[str]) -> list[str]:
    """`args` with the global options moved to the front, so that they may stand after a command as well. What
    follows `--` stays where it is."""
    front: list[str] = []
    rest: list[str] = []
    left = list(args)
    while left:
        arg = left.pop(0)
        if arg == "--" or (arg in _OWN_OPTIONS and not rest):
            return [*front, *rest, arg, *left]
        if arg in _FLAGS or arg.startswith(tuple(f"{option}=" for option in _VALUED)):
            front.append(arg)
        elif arg in _VALUED and left:
            front += [arg, left.pop(0)]
        else:
            rest.append(arg)
    return front + rest


class RootGroup(TyperGroup):
    """A `Fault`, or what `serve` raises on purpose, is one line on standard error and exit status 1."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, global_first(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Fault as fault:
            raise _told(fault) from None
        except LoramuxError as error:
            raise _told(Fault(error.message, error.code)) from error


def _told(fault: Fault) -> typer.Exit:
    sys.stderr.write(f"error: {fault}\n")
    return typer.Exit(1)
