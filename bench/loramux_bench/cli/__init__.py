"""`loramux bench`: thin commands."""

import typer

from loramux_bench.cli import compare, cost, gate, overhead, run, scale, scenarios, slots, stall, tiers, token, trust
from loramux_bench.cli.root import BenchGroup

app = typer.Typer(
    name="bench",
    cls=BenchGroup,
    help="Put load on an endpoint, measure it, compare, and decide whether it may ship.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("report")(run.report)
app.command("scenarios")(scenarios.scenarios)
app.command("token")(token.token)
app.command("compare")(compare.compare)
app.command("gate")(gate.gate)
app.command("trust")(trust.trust)
app.command("cost")(cost.cost)
app.command("scale")(scale.scale)
app.command("slots")(slots.slots)
app.command("stall")(stall.stall)
app.command("tiers")(tiers.tiers)
app.command("overhead")(overhead.overhead)
