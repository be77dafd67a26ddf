"""What `locust -f` loads: one user class for each target of a scenario.

    LORAMUX_BENCH_SCENARIO=steady locust -f bench/loramux_bench/locustfile.py
    LORAMUX_BENCH_SCENARIO=steady locust -f bench/loramux_bench/locustfile.py --headless --processes 2

| variable | meaning | default |
|---|---|---|
| `LORAMUX_BENCH_SCENARIO` | name of a scenario that comes with the bench, or a file; workers need the same | `smoke` |
| `LORAMUX_BENCH_SET` | overrides such as `load.users=4`, one a line | none |
| `LORAMUX_BENCH_RESULTS` | where directories of results are made | `results` |
| `LORAMUX_BENCH_RUN` | the directory of this one run, which is there already | a new one of the results |

`-u`, `-r` and `--stop-timeout`, where not given, come from the scenario.
"""

import os
from pathlib import Path

from locust import events
from locust.env import Environment

from loramux_bench.apis.connect import preload
from loramux_bench.runner.conductor import Conductor
from loramux_bench.runner.stage import Stage
from loramux_bench.runner.users import user_class
from loramux_bench.scenario import load_scenario

_stage = Stage()
_scenario = load_scenario(
    os.environ.get("LORAMUX_BENCH_SCENARIO", "smoke"), os.environ.get("LORAMUX_BENCH_SET", "").splitlines()
)
preload(_scenario.targets)
globals().update({cls.__name__: cls for cls in (user_class(target, _stage) for target in _scenario.targets)})


@events.init.add_listener  # type: ignore[untyped-decorator]
def _attach(environment: Environment, **_: object) -> None:
    run = os.environ.get("LORAMUX_BENCH_RUN")
    _stage.attach(environment)
    Conductor(
        _scenario, results=Path(os.environ.get("LORAMUX_BENCH_RESULTS", "results")), run=Path(run) if run else None
    ).attach(environment)
