"""Which tier an adapter was in when a request for it was sent."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from loramux_bench.record import RequestRecord
from loramux_bench.run_dir import Sample

BASE = "base"
UNKNOWN = "unknown"
TIERS = ("gpu", "cpu", "disk", "remote")


def tiers_at_sending(
    records: Sequence[RequestRecord], samples: Iterable[Sample], *, base: str = "", untold: Collection[str] = ()
) -> list[str]:
    """One for each request: `gpu`, `cpu`, `disk`, `remote` by the last sample at or before its sending, so at most one
    scrape's interval old; `base` for the base; `unknown` without such a sample, for an adapter that the sample does not
    name, and for the targets `untold`, of which the samples do not tell.

    Takes O((requests + samples) log samples).
    """
    told = sorted(
        ((sample.at_s, sample.tiers) for sample in samples if sample.tiers is not None), key=lambda entry: entry[0]
    )
    times = np.array([at_s for at_s, _ in told], dtype=np.float64)
    sent = np.array([record.sent_s for record in records], dtype=np.float64)
    places = np.searchsorted(times, sent, side="right") - 1
    found = []
    for record, place in zip(records, places.tolist(), strict=True):
        if base and record.adapter == base:
            found.append(BASE)
        elif place < 0 or record.target in untold:
            found.append(UNKNOWN)
        else:
            found.append(told[place][1].get(record.adapter, UNKNOWN))
    return found
