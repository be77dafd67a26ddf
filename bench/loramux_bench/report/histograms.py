"""How the values of a measure are spread, as bars of an even and round width."""

import math
from collections.abc import Iterable

import numpy as np

from loramux_bench.record import RequestRecord
from loramux_bench.report.charts import Chart, Curve, Mark
from loramux_bench.report.figures import plain
from loramux_bench.results.measures import MEASURES, Values

CLIP_PERCENT = 99.5
"""Above this percentile values share one bar, where they would else squeeze the others together."""
LONG_TAIL = 1.25
"""They would where the whole span is more than so many times the span below that percentile."""
MAX_BARS = 50

_SHOWN = ("ttft", "itl", "e2e", "speed")


def histograms(requests: Iterable[RequestRecord]) -> list[Chart]:
    """Of the measured, answered requests; a measure without a value is left out."""
    measured = [record for record in requests if record.ok and not record.warmup]
    pooled = {name: MEASURES[name].pooled(measured) for name in _SHOWN}
    return [histogram(name, values) for name, values in pooled.items() if values.size]


def histogram(name: str, values: Values) -> Chart:
    """Of one value or more, in the measure's unit, shape (n,); seconds are shown as milliseconds. Every value is in
    exactly one bar."""
    measure = MEASURES[name]
    unit = "ms" if measure.unit == "s" else "tok/s"
    values = values * 1000 if measure.unit == "s" else values
    low, high = float(values.min()), float(values.max())
    clip = float(np.percentile(values, CLIP_PERCENT, method="lower"))
    if high - low > LONG_TAIL * (clip - low) and clip > low:
        high = clip
    width = round_width((high - low) / bars_for(values.size)) if high > low else round_width(max(abs(high), 1e-3) / 50)
    first = math.floor(low / width)
    count = max(1, math.floor(high / width) - first + 1)
    edges = (first + np.arange(count + 1)) * width
    places = np.clip(np.floor(values / width).astype(np.int64) - first, 0, count)
    counts = np.bincount(places, minlength=count + 1)
    within, above = counts[:count], int(counts[count])
    last = float(edges[-1])
    digits = max(0, (1 if _leading(width) == 2.5 else 0) - math.floor(math.log10(width) + 1e-9))
    x = [round(float(edge) + width / 2, digits + 2) for edge in edges[:-1]]
    texts = [f"{edge:,.{digits}f}–{edge + width:,.{digits}f} {unit}" for edge in edges[:-1]]
    label = "gaps" if name == "itl" else "requests"
    curves = [Curve(label=label, values=[int(n) for n in within], tone="c0", scale="y", bars=True)]
    note = f"Bars of {plain(width)} {unit}."
    if above:
        x.append(x[-1] + 2 * width)
        texts.append(f"{last:,.{digits}f} {unit} or more")
        share = 100 * above / values.size
        counted = label if above > 1 else label.removesuffix("s")
        note += (
            f" The last bar, apart, holds all of {last:,.{digits}f} {unit} or more: {above:,} {counted} "
            f"({share:.2g} %), the largest {plain(float(values.max()))} {unit}."
        )
        curves[0].values.append(None)
        curves.append(Curve(label="beyond", values=[None] * count + [above], tone="c1", scale="y", bars=True))
    p50, p99 = (float(value) for value in np.percentile(values, (50, 99)))
    marks = [Mark(at=[p50], tone="text", text="p50")]
    if p99 <= last:
        marks.append(Mark(at=[p99], tone="text", text="p99"))
    return Chart(
        id=f"histogram-{name}",
        kind="histogram",
        title=measure.title,
        unit=unit,
        x=x,
        x_label="from–to",
        axes=["y"],
        series=curves,
        marks=marks,
        whole=True,
        note=note,
        x_texts=texts,
        range=(float(edges[0]) - width / 2, x[-1] + width),
        last=last,
    )


def bars_for(count: int) -> int:
    """The square root of the number of values, as spreadsheets do; `MAX_BARS` at most."""
    return max(1, min(MAX_BARS, math.ceil(math.sqrt(count))))


def round_width(width: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= width * (1 - 1e-9))


def _leading(width: float) -> float:
    return round(width / 10.0 ** math.floor(math.log10(width) + 1e-9), 3)
