"""How far operations under way are. In memory: a restart begins them anew."""

from dataclasses import replace

from loramux_adapters.model import Operation, OperationState, VersionState
from loramux_adapters.ports import Progress

_SHARE = {
    VersionState.PENDING: (0.0, 0.0),
    VersionState.FETCHING: (0.0, 0.6),
    VersionState.VALIDATING: (0.6, 0.8),
    VersionState.STAGING: (0.8, 1.0),
}
"""Where each stage begins and ends on the scale from 0 to 1."""


class ProgressBoard:
    """Written by the event loop and by worker threads, each entry by one at a time."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[str, float]] = {}

    def enter(self, operation_id: str, stage: VersionState) -> None:
        self._entries[operation_id] = (stage.value, _SHARE[stage][0])

    def reporter(self, operation_id: str) -> Progress:
        begin, end = _SHARE[VersionState.FETCHING]

        def report(done_bytes: int, total_bytes: int | None) -> None:
            if operation_id not in self._entries:
                return  # a worker that outlived its operation
            share = min(done_bytes / total_bytes, 1.0) if total_bytes else 0.0
            self._entries[operation_id] = (VersionState.FETCHING.value, begin + (end - begin) * share)

        return report

    def onto(self, operation: Operation) -> Operation:
        entry = self._entries.get(operation.id)
        if entry is None or operation.state is not OperationState.RUNNING:
            return operation
        return replace(operation, stage=entry[0], progress=entry[1])

    def forget(self, operation_id: str) -> None:
        self._entries.pop(operation_id, None)
