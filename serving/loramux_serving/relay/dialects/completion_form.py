"""What the dialects that tell tokens one by one share of a stream's form."""

from abc import ABC, abstractmethod

from loramux_adapters.errors import LoramuxError
from loramux_serving.relay.dialects.completion_answer import CompletionStream, Delta, EngineFault
from loramux_serving.relay.token_usage import Usage


class TokenStream(ABC):
    """`relay.dialect.StreamForm`, of what `CompletionStream` reads. After its end, or a failure, it says nothing."""

    def __init__(self, reader: CompletionStream) -> None:
        self._reader = reader
        self._ended = False
        self.tokens_seen = False
        self.failed = False

    @property
    def usage(self) -> Usage | None:
        return self._reader.usage

    def feed(self, data: bytes) -> bytes:
        return self._said(self._reader.feed(data))

    def finish(self) -> bytes:
        rest = self._said(self._reader.finish())
        return rest if self._ended else rest + self._incomplete()

    def broken(self, error: LoramuxError) -> bytes:
        return b"" if self._ended else self._broken(error)

    def _said(self, pieces: list[Delta | EngineFault]) -> bytes:
        said = []
        for piece in pieces:
            if self._ended:
                break
            said.append(self._fault(piece) if isinstance(piece, EngineFault) else self._delta(piece))
        return b"".join(said)

    @abstractmethod
    def _delta(self, piece: Delta) -> bytes:
        """Sets `tokens_seen`, and `_ended` with the last one."""

    @abstractmethod
    def _fault(self, fault: EngineFault) -> bytes:
        """Sets `failed` and `_ended`, as the two below."""

    @abstractmethod
    def _broken(self, error: LoramuxError) -> bytes: ...

    @abstractmethod
    def _incomplete(self) -> bytes:
        """The engine ended the stream before the last token."""
