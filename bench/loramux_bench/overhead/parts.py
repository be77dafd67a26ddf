"""The parts, by name, in the order in which they run."""

from loramux_bench.overhead.capacity import capacity
from loramux_bench.overhead.connections import connections
from loramux_bench.overhead.faults import faults
from loramux_bench.overhead.frames import frames
from loramux_bench.overhead.many_adapters import many_adapters
from loramux_bench.overhead.memory import memory
from loramux_bench.overhead.part import Part
from loramux_bench.overhead.requests import requests
from loramux_bench.overhead.streams import streams
from loramux_bench.overhead.workers import workers

PARTS: dict[str, Part] = {
    "requests": requests,
    "streams": streams,
    "frames": frames,
    "capacity": capacity,
    "adapters": many_adapters,
    "workers": workers,
    "memory": memory,
    "connections": connections,
    "faults": faults,
}
