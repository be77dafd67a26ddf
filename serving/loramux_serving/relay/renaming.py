"""The engine's name of a model, replaced by the one that the caller used. Pure.

The pattern is `"model":"<name>"`, with or without a blank after the colon. It can not occur within a JSON string,
where quotes are escaped, so no parsing is needed to find it.
"""

import msgspec


class Renaming:
    """From `engine_name` to `caller_name`. Does nothing, at no cost, where they are equal."""

    def __init__(self, engine_name: str, caller_name: str) -> None:
        self._needed = engine_name != caller_name
        engine, caller = msgspec.json.encode(engine_name), msgspec.json.encode(caller_name)
        self._engine, self._caller = engine[1:-1], caller[1:-1]
        self._compact = (b'"model":' + engine, b'"model":' + caller)
        self._spaced = (b'"model": ' + engine, b'"model": ' + caller)

    def apply(self, data: bytes) -> bytes:
        """`data` with each whole occurrence of the pattern replaced."""
        if not self._needed:
            return data
        return data.replace(*self._compact).replace(*self._spaced)

    def apply_anywhere(self, data: bytes) -> bytes:
        """`data` with the bare name replaced wherever it is: for error messages, which quote it in their own way."""
        return data.replace(self._engine, self._caller) if self._needed else data

    @property
    def reach_bytes(self) -> int:
        """Bytes of the longest beginning of an occurrence that may be cut off at the end of data."""
        return len(self._spaced[0]) - 1 if self._needed else 0


class IncrementalRenaming:
    """Applies a `Renaming` to data that comes in pieces. Holds back at most `reach_bytes`."""

    def __init__(self, renaming: Renaming) -> None:
        self._renaming = renaming
        self._carry = b""

    def feed(self, data: bytes) -> bytes:
        reach = self._renaming.reach_bytes
        if not reach:
            return data
        # What was replaced can not match again, so the carry may hold the end of a replacement.
        done = self._renaming.apply(self._carry + data)
        self._carry = done[-reach:]
        return done[:-reach]

    def finish(self) -> bytes:
        carry, self._carry = self._carry, b""
        return carry
