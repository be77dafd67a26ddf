"""Which adapters have a metric label of their own."""

from collections.abc import Collection

OTHER = "other"
"""The label that all further adapters share; an adapter of this name shares it too."""

NONE = ""
"""The label of requests that came to no adapter. Prometheus takes an empty label for an absent one."""


class AdapterLabels:
    """At most `max_adapters` labels, to those that are seen first; the others share `OTHER`, and one of them takes
    over, when it is seen next, what `forget` sets free. Names in `always` (the base) have theirs besides."""

    def __init__(self, max_adapters: int, always: Collection[str] = ()) -> None:
        self._max_adapters = max_adapters
        self._always = frozenset(always) - {OTHER}
        self._own: set[str] = set()

    def label(self, adapter: str | None) -> str:
        """The adapter's label, its own if it has one or can have one now. Constant time."""
        if adapter is None:
            return NONE
        if adapter in self._own or adapter in self._always:
            return adapter
        if adapter == OTHER or len(self._own) >= self._max_adapters:
            return OTHER
        self._own.add(adapter)
        return adapter

    def forget(self, adapter: str) -> bool:
        """Set the adapter's own label free. False where it has none, or keeps it always."""
        if adapter not in self._own:
            return False
        self._own.remove(adapter)
        return True

    def own(self) -> frozenset[str]:
        """The adapters that have a label which `forget` would set free."""
        return frozenset(self._own)
