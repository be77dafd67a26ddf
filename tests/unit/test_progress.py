"""How far operations are."""

from dataclasses import replace

import pytest

from loramux_adapters.model import Operation, OperationKind, OperationState, VersionState
from loramux_adapters.progress import ProgressBoard

OPERATION = Operation("o1", OperationKind.ADD, "tone", 1, OperationState.RUNNING, 1.0)


@pytest.fixture
def board() -> ProgressBoard:
    return ProgressBoard()


def test_progress_grows_from_stage_to_stage(board: ProgressBoard) -> None:
    report = board.reporter("o1")
    seen = []
    board.enter("o1", VersionState.FETCHING)
    for done_bytes in (0, 50, 100, 150):
        report(done_bytes, 100)
        seen.append(board.onto(OPERATION).progress)
    for stage in (VersionState.VALIDATING, VersionState.STAGING):
        board.enter("o1", stage)
        seen.append(board.onto(OPERATION).progress)
        assert board.onto(OPERATION).stage == stage
    assert seen == sorted(seen)
    assert (seen[0], seen[1], seen[2]) == (0.0, 0.3, 0.6)
    assert seen[-1] < 1.0


@pytest.mark.parametrize("total", [None, 0])
def test_a_size_that_is_not_known(board: ProgressBoard, total: int | None) -> None:
    board.enter("o1", VersionState.FETCHING)
    board.reporter("o1")(10, total)
    assert (board.onto(OPERATION).stage, board.onto(OPERATION).progress) == ("fetching", 0.0)


def test_only_what_runs_has_a_stage(board: ProgressBoard) -> None:
    board.enter("o1", VersionState.STAGING)
    ended = replace(OPERATION, state=OperationState.SUCCEEDED, progress=1.0)
    assert board.onto(ended) == ended
    assert board.onto(replace(OPERATION, id="o2")) == replace(OPERATION, id="o2")


def test_what_is_forgotten_does_not_come_back(board: ProgressBoard) -> None:
    """A worker thread may outlive its operation."""
    board.enter("o1", VersionState.FETCHING)
    report = board.reporter("o1")
    board.forget("o1")
    report(50, 100)
    assert board.onto(OPERATION) == OPERATION
    board.forget("o1")
