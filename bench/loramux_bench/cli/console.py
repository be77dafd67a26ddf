"""Where answers and progress go."""

from rich.console import Console

_PIPE_COLUMNS = 200
"""Width where no terminal bounds it: lines of a log are not broken."""


def answers() -> Console:
    """Standard output."""
    return _wide(Console(highlight=False))


def remarks() -> Console:
    """Standard error: progress, and what is not part of the answer."""
    return _wide(Console(stderr=True, highlight=False))


def _wide(console: Console) -> Console:
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    return console
