"""Lines that LF ends, put together from parts that are cut anywhere."""


class LineTooLarge(ValueError):
    """A line, or what is made of lines, of more bytes than a reader should hold."""


class Lines:
    """Takes time in proportion to what it is fed, however long the lines are. Raises `LineTooLarge` for a line of more
    than `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        """Of the line that has not ended."""
        self.held_bytes = 0

    def feed(self, part: bytes) -> list[bytes]:
        """The lines that end within `part`, without their ends."""
        *lines, piece = part.split(b"\n")
        if lines:
            if self._pieces:
                lines[0] = b"".join([*self._pieces, lines[0]])
            self._pieces = [piece] if piece else []
            self.held_bytes = len(piece)
        elif piece:
            self._pieces.append(piece)
            self.held_bytes += len(piece)
        if self.held_bytes > self._max_bytes:
            raise LineTooLarge(f"a line of more than {self._max_bytes} bytes")
        return lines

    def rest(self) -> bytes:
        """The line that has not ended."""
        return b"".join(self._pieces)
