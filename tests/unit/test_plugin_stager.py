import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from loramux_serving.engine.plugin import stager


class Told:
    """In the loader's place: what each load says."""

    def __init__(self, *faults: Exception | None) -> None:
        self.faults = list(faults)

    def load(self, path: str) -> tuple[int, int]:
        fault = self.faults.pop(0)
        if fault is not None:
            raise fault
        return os.open(path, os.O_RDONLY), 7


def desk(loader: Any) -> tuple[Any, io.StringIO]:
    out = io.StringIO()
    return stager._Desk(loader, out, 1), out


def test_the_next_load_stands_back_for_as_long_as_this_one_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    waited = iter([1.0, 1.25, 2.0, 2.0, 3.0, 9.0])
    monkeypatch.setattr(stager, "_waited_s", lambda: next(waited))
    monkeypatch.setattr(time, "sleep", rests.append)
    made, out = desk(Told(None, ValueError("bad"), OSError("gone")))
    for job in range(3):
        made._run(job, str(tmp_path))
    assert rests == [0.25, 0.0, stager._MOST_REST_S]
    said = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [set(each) for each in said] == [{"job", "slab", "bytes"}, {"job", "refused"}, {"job", "unable"}]
    made.take({"drop": 0})
    made.take({"drop": 0})


def test_what_a_thread_has_waited_grows() -> None:
    assert 0.0 <= stager._waited_s() <= stager._waited_s()
