"""How a failure ends: one line on standard error, and the error's own exit status."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from loramux_bench.errors import BenchError


class BenchGroup(TyperGroup):
    """Turns a `BenchError` into a line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BenchError as error:
            sys.stderr.write(f"error: {error}\n")
            raise typer.Exit(error.exit_status) from None
