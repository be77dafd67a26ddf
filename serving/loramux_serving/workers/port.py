"""The public port, shared by the workers: each has a socket of its own there, and the kernel spreads connections."""

import socket
from typing import Self

BACKLOG = 2048


class SharedPort:
    """Sockets of one address, one for each worker. They are opened here and inherited, so that what waits in a socket's
    line is not lost with a worker: its successor takes it."""

    def __init__(self, claim: socket.socket, count: int) -> None:
        """`claim` is bound to the address, and not listening; it keeps others away until `open`."""
        self._claim = claim
        self._address = claim.getsockname()
        # Bound while the claim is, so that the port is nobody else's in between.
        self._keeper = self._bound()
        self._sockets: list[socket.socket | None] = [self._bound() for _ in range(count)]

    def open(self) -> None:
        """Take connections. Raises `OSError` where another gateway does by now."""
        self._claim.listen()  # sharing a port is for ourselves: this fails where anybody else listens
        self._claim.close()
        for each in self._sockets:
            assert each is not None
            each.listen(BACKLOG)

    def listener(self, index: int) -> socket.socket:
        """Listening; made anew where it was shut."""
        found = self._sockets[index]
        if found is None:
            found = self._sockets[index] = self._bound()
            found.listen(BACKLOG)
        return found

    def shut(self, index: int) -> None:
        """Nobody will serve it soon: callers go to the others'."""
        found, self._sockets[index] = self._sockets[index], None
        if found is not None:
            found.close()

    def close(self) -> None:
        for index in range(len(self._sockets)):
            self.shut(index)
        self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _bound(self) -> socket.socket:
        made = socket.socket(self._claim.family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind(self._address)
        except BaseException:
            made.close()
            raise
        return made
