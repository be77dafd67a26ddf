"""What SageMaker's interface needs of the gateway, beside the registry."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol


class Copies(Protocol):
    """How many replicas run."""

    @property
    def limit(self) -> int:
        """The most that can run."""
        ...

    @property
    def wanted(self) -> int: ...

    @property
    def ready(self) -> int: ...

    async def set(self, count: int) -> None:
        """From here on `count` are wanted. Returns when that is noted. Raises `RequestInvalid`."""
        ...


Misfits = Callable[[Mapping[str, str]], Sequence[str]]
"""From a container's environment: in what it differs from what runs here, a sentence each. Raises `RequestInvalid`
where it can not be read."""

Trouble = Callable[[], str]
"""Why replicas are not ready, in a sentence; empty where nothing is known."""
