"""A page of Prometheus metrics as the bench keeps it: few series, by name with labels."""

import io
import time

from prometheus_client.parser import text_fd_to_metric_families
from prometheus_client.samples import Sample as Series

MAX_SERIES = 500

_WANTED = ("loramux_", "vllm:", "process_cpu_seconds_total", "process_resident_memory_bytes")
_UNWANTED_ENDS = ("_bucket", "_created")


def read_page(text: str, *, limit: int = MAX_SERIES) -> tuple[dict[str, float], int]:
    """Gauges, counters, and histograms' `_sum` and `_count` of loramux, vLLM and the process; and how many more there
    were. Series of one adapter are left out first. Raises `ValueError` where the text is no such page."""
    if "<html" in text[:512].lower():
        raise ValueError("a web page")
    lines, dropped = _choose(text, limit)
    found: dict[str, float] = {}
    for family in text_fd_to_metric_families(io.StringIO("\n".join(lines) + "\n")):
        for series in family.samples:
            found[_name_of(series)] = series.value
        # Below gevent the load goes on between families: parsing is slow.
        time.sleep(0)
    return found, dropped


def _choose(text: str, limit: int) -> tuple[list[str], int]:
    """The lines that are worth parsing, in their order: buckets are most of a page."""
    lines: list[str] = []
    general: list[int] = []
    single: list[int] = []
    for line in text.split("\n"):
        if line.startswith("# TYPE "):
            if line[7:].startswith(_WANTED) or line[7:].startswith("process_"):
                lines.append(line)
            continue
        if not line.startswith(_WANTED) or line.partition("{")[0].partition(" ")[0].endswith(_UNWANTED_ENDS):
            continue
        (single if 'adapter="' in line else general).append(len(lines))
        lines.append(line)
    dropped = set((general + single)[limit:])
    return [line for number, line in enumerate(lines) if number not in dropped], len(dropped)


def _name_of(series: Series) -> str:
    if not series.labels:
        return series.name
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in series.labels.items())
    return f"{series.name}{{{labels}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
