"""What the conductor tells each load process before it starts, as one message."""

import msgspec

from loramux_bench.scenario import Scenario, parse

BEGIN = "loramux_begin"
"""Conductor to load processes, with packed `Orders`."""
FINISH = "loramux_finish"
"""Conductor to load processes, with the seconds that requests under way may still take."""
REPORT = "loramux_report"
"""Load process to conductor, with a packed `Report`."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a process needs to send its share."""

    scenario: bytes
    """JSON of the `Scenario`."""
    started_at: float
    """Unix seconds of offset 0."""
    worker: int
    workers: int
    adapters: list[str]
    base: str
    urls: dict[str, str]
    """By target."""
    keys: dict[str, str]
    """By target."""
    tenants: dict[str, str]
    """Keys by tenant."""
    observations: list[tuple[int, int]]
    """Words of a text, and the tokens that the endpoint counted for it; empty where it was not asked."""

    def load_scenario(self) -> Scenario:
        return parse(msgspec.json.decode(self.scenario), "of this run")


def pack(orders: Orders) -> bytes:
    return msgspec.json.encode(orders)


def unpack(content: bytes) -> Orders:
    return msgspec.json.decode(content, type=Orders)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a load process has to tell, some times a second and at its end."""

    worker: int
    records: list[bytes]
    """Lines of `requests.jsonl`."""
    sample: bytes = b""
    """A line of `samples.jsonl`."""
    done: bool = False
    """It has nothing left to send, and nothing under way."""
    closed: bool = False
    """Its users have ended; this is its last report."""
    failure: str = ""
    """A sentence: why it can not do its share."""


def pack_report(report: Report) -> bytes:
    return msgspec.msgpack.encode(report)


def unpack_report(content: bytes) -> Report:
    return msgspec.msgpack.decode(content, type=Report)
