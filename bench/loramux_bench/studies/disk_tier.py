"""The files of a gateway that a study has started: its disk tier, in the gateway's home."""

import shutil
from pathlib import Path

from loramux_bench.admin.answers import AdapterView
from loramux_bench.admin.artifact import WEIGHTS
from loramux_bench.errors import EndpointError


def weights_of(home: Path, adapter: AdapterView | None) -> Path:
    """The file that its engine reads of the live version. Raises `EndpointError` where it is not there."""
    found = None
    if adapter is not None:
        digest = next((one.sha256 for one in adapter.versions if one.number == adapter.live), None)
        found = next(home.glob(f"artifacts/*/{digest}/{WEIGHTS}"), None) if digest else None
    if found is None:
        raise EndpointError(f"The files of {adapter.name if adapter else 'an adapter'!r} are not in the disk tier.")
    return found


def remove(home: Path, adapter: AdapterView) -> None:
    """As if the disk tier had evicted it: only of an adapter that no engine holds. Raises `EndpointError` where it is
    not there."""
    shutil.rmtree(weights_of(home, adapter).parent)
