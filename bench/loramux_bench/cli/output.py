"""Files that a command writes at its end."""

from pathlib import Path

from loramux_bench.errors import ResultsError


def make_room(path: Path) -> None:
    """What can not be written is refused now, not after the load. Raises `ResultsError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise ResultsError(f"{path} can not be written: {error.strerror}.") from error
