"""Every place that adapters may come from, told apart by scheme."""

import re
from collections.abc import Mapping
from pathlib import Path

from loramux_adapters.errors import RequestInvalid, SourceNotAllowed
from loramux_adapters.names import shown
from loramux_adapters.ports import ArtifactSource, Progress

FILE = "file"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_MAX_LENGTH = 2048


def scheme_of(source: str) -> str:
    """`s3` of `s3://…`, `upload` of `upload:…`, `file` of a path. Lower case."""
    match = _SCHEME.match(source)
    return match[1].lower() if match else FILE


class Sources:
    """`ports.ArtifactSource` over one source for each scheme that is allowed: `file` (also plain paths), `s3`, `hf`,
    `upload`. What is not in `by_scheme` is refused with `SourceNotAllowed`."""

    def __init__(self, by_scheme: Mapping[str, ArtifactSource]) -> None:
        self._by_scheme = dict(by_scheme)

    def check(self, source: str) -> None:
        self._choose(source).check(source)

    def fetch(self, source: str, into: Path, progress: Progress) -> None:
        chosen = self._choose(source)
        chosen.check(source)
        chosen.fetch(source, into, progress)

    def forget(self, source: str) -> None:
        """As in the port; a scheme that was allowed once and is no more has nothing to forget."""
        chosen = self._by_scheme.get(scheme_of(source))
        if chosen is not None:
            chosen.forget(source)

    def _choose(self, source: str) -> ArtifactSource:
        if not 0 < len(source) <= _MAX_LENGTH or not source.isprintable():
            raise RequestInvalid(f"A source is an address of 1 to {_MAX_LENGTH} printable characters.")
        scheme = scheme_of(source)
        try:
            return self._by_scheme[scheme]
        except KeyError:
            allowed = ", ".join(sorted(self._by_scheme)) or "none"
            raise SourceNotAllowed(
                f"Sources of the kind {shown(scheme)} are not allowed; allowed are: {allowed}."
            ) from None
