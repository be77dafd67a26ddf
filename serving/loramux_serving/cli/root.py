"""The root of the commands: where global options may stand, and how a failure ends."""

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from loramux_adapters.errors import LoramuxError
from loramux_serving.cli.gateway import Fault

_FLAGS = ("--json",)
_VALUED = ("--url", "--key")
_OWN_OPTIONS = ("serve", "bench")
"""Commands that do without our connection: what follows their name is theirs alone."""
_PLUGINS = "loramux.commands"
"""Entry points of this group are commands too: Typer applications, imported when they are called."""


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

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(_plugins())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        plugin = _plugins().get(cmd_name)
        return _load(plugin) if plugin else super().get_command(ctx, cmd_name)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Fault as fault:
            raise _told(fault) from None
        except LoramuxError as error:
            raise _told(Fault(error.message, error.code)) from error


def _plugins() -> dict[str, EntryPoint]:
    return {plugin.name: plugin for plugin in entry_points(group=_PLUGINS)}


def _load(plugin: EntryPoint) -> Any:
    """Its command, or where packages that it needs are not installed, one that says so."""
    try:
        return typer.main.get_command(plugin.load())
    except ModuleNotFoundError as missing:
        if str(missing.name).startswith("loramux"):
            raise
        return _absent(plugin.name, f"{plugin.name} needs {missing.name}: pip install 'loramux[{plugin.name}]'")


def _absent(name: str, why: str) -> Any:
    absent = typer.Typer()

    @absent.command(name, help=f"({why})", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def tell() -> None:
        raise Fault(why)

    return typer.main.get_command(absent)


def _told(fault: Fault) -> typer.Exit:
    sys.stderr.write(f"error: {fault}\n")
    return typer.Exit(1)
