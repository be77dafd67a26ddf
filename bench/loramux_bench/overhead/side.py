"""What is measured: an address, and the processes behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

DIRECT = "direct"
LORAMUX = "loramux"

Peer = Literal["vllm-router", "vllm-router-default", "sglang-router", "litellm"]
"""`vllm-router` has its leanest policy; `vllm-router-default` the one that it has when none is given."""

PEERS: tuple[Peer, ...] = get_args(Peer)
SIDES = (DIRECT, LORAMUX, *PEERS)
"""`direct` is the mock engine with nothing between."""


@dataclass(frozen=True, slots=True)
class Side:
    """A server that answers."""

    name: str
    """One of `SIDES`, or one of these with what is special about it."""
    url: str
    """`http://127.0.0.1:PORT`"""
    headers: Mapping[str, str]
    """With the key where it wants one."""
    model: str
    """What `model` to ask for."""
    pids: tuple[int, ...]
    """Its processes, for CPU time and memory from /proc."""

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)
