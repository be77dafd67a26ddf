"""`docs/metrics.md` tells of every metric, and of none that does not exist."""

import re
from pathlib import Path

import pytest

from loramux_serving.telemetry.metric_table import METRICS, MetricSpec

DOC = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture(scope="module")
def doc() -> str:
    return DOC.read_text()


@pytest.mark.parametrize("spec", METRICS, ids=lambda spec: spec.name)
def test_every_metric_has_a_row(doc: str, spec: MetricSpec) -> None:
    rows = [line for line in doc.splitlines() if line.startswith(f"| `{spec.name}` |")]
    assert len(rows) == 1, f"{spec.name} needs one row in {DOC.name}"
    _, _, kind, labels, unit, *_ = (cell.strip() for cell in rows[0].split("|"))
    assert kind == spec.kind
    assert re.findall(r"`(\w+)`", labels) == list(spec.labels)
    assert unit == spec.unit


def test_every_name_exists(doc: str) -> None:
    known = {spec.name for spec in METRICS}
    parts = {
        f"{spec.name}_{part}" for spec in METRICS if spec.kind == "histogram" for part in ("bucket", "sum", "count")
    }
    assert set(re.findall(r"\bloramux_\w+", doc)) <= known | parts
