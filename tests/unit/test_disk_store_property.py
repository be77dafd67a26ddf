"""Whatever happens, the disk tier stays within its bounds and keeps what it must."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from loramux_adapters.artifacts.disk import DiskStore
from loramux_adapters.errors import StorageFull
from tests.fakes.adapter_files import WEIGHTS, tiny_base, write_adapter

BASE = tiny_base()


def opened(root: Path, capacity_bytes: int = 1 << 24) -> DiskStore:
    return DiskStore(root, capacity_bytes=capacity_bytes)


SEEDS = st.integers(0, 7)


class Store(RuleBasedStateMachine):
    """Commits, reads, removals and restarts in any order, against a list in order of use."""

    @initialize(slots=st.integers(1, 4))
    def open(self, slots: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.root = Path(self.directory.name)
        probe = opened(self.root / "probe")
        self.size = probe.commit(write_adapter(probe.workdir(), BASE), ()).size_bytes
        self.capacity = slots * self.size + self.size // 2
        self.store = opened(self.root / "store", self.capacity)
        self.order: list[str] = []

    @rule(seed=SEEDS, keep=st.sets(st.integers(0, 3)))
    def commit(self, seed: int, keep: set[int]) -> None:
        kept = {self.order[index] for index in keep if index < len(self.order)}
        workdir = write_adapter(self.store.workdir(), BASE, seed=seed)
        try:
            digest = self.store.commit(workdir, kept).digest
        except StorageFull:
            self.store.discard(workdir)
            assert (len(kept) + 1) * self.size > self.capacity
            return
        if digest in self.order:
            self.order.remove(digest)
        while (len(self.order) + 1) * self.size > self.capacity:
            self.order.remove(next(candidate for candidate in self.order if candidate not in kept))
        self.order.append(digest)
        assert kept <= set(self.order)

    @rule(index=st.integers(0, 7))
    def get(self, index: int) -> None:
        if index < len(self.order):
            digest = self.order.pop(index)
            assert self.store.get(digest) is not None
            self.order.append(digest)

    @rule(index=st.integers(0, 7))
    def remove(self, index: int) -> None:
        if index < len(self.order):
            self.store.remove(self.order.pop(index))

    @rule()
    def leave_a_part(self) -> None:
        (self.store.workdir() / WEIGHTS).write_bytes(b"part")

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = opened(self.root / "store", self.capacity)
        assert len(list((self.root / "store" / ".work").iterdir())) == 1

    @invariant()
    def within_bounds(self) -> None:
        if hasattr(self, "store"):
            assert [artifact.digest for artifact in self.store.entries()] == self.order
            assert self.store.size_bytes() <= self.capacity

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            self.store.close()
            self.directory.cleanup()


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
