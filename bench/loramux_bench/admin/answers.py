"""What loramux' admin interface and OpenAI's listings say, as far as the bench reads it: other fields are passed
over."""

from typing import Any

import msgspec


class Model(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    root: str | None = None
    parent: str | None = None
    """The base that it is an adapter of; None for a base."""
    owned_by: str = ""

    @property
    def is_alias(self) -> bool:
        """vLLM puts an adapter's path where loramux puts the adapter that an alias leads to."""
        return self.owned_by == "loramux" and self.root is not None and self.root != self.id


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    data: tuple[Model, ...]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int | None = None


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    choices: tuple[Any, ...]
    usage: Usage | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str


class OperationView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: str
    adapter: str
    version: int | None = None
    state: str
    error: Failure | None = None


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    operation: OperationView


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    source: str
    sha256: str | None = None

    @property
    def uploaded(self) -> bool:
        return self.source.startswith("upload:")


class CanaryView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the interface shows of it, and takes to set it again."""

    version: int
    weight: float
    sticky: str | None = None
    rule: dict[str, Any] | None = None


class AdapterView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    state: str
    live: int | None = None
    canary: CanaryView | None = None
    tiers: dict[str, str]
    versions: tuple[VersionView, ...] = ()


class AdapterPage(msgspec.Struct, frozen=True, kw_only=True):
    adapters: tuple[AdapterView, ...]
    next_cursor: str | None


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    key: str


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    state: str
    url: str = ""
    capabilities: dict[str, Any] | None = None


class ReplicaList(msgspec.Struct, frozen=True, kw_only=True):
    replicas: tuple[ReplicaView, ...]


class _Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Also AWS' forms, which have no `error`."""

    error: Any = None
    message: Any = None


def fault_of(body: bytes) -> tuple[str, str]:
    """Code and message of an answer that refuses, each empty where it is not said."""
    try:
        said = msgspec.json.decode(body, type=_Fault)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "", ""
    if isinstance(said.error, dict):
        code = said.error.get("code") or said.error.get("type") or ""
        return str(code), str(said.error.get("message") or "")
    return "", str(said.error or said.message or "")
