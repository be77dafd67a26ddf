"""Rows to the frozen nouns of `model` and back."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import Row

from loramux_adapters.model import (
    Adapter,
    AdapterInfo,
    AdapterState,
    Alias,
    ApiKey,
    CanaryEnd,
    CanaryFigures,
    CanaryRule,
    Failure,
    Operation,
    OperationKind,
    OperationState,
    Resource,
    ResourceKind,
    ResourceState,
    Role,
    Sticky,
    Tier,
    Version,
    VersionState,
)


def adapter_of(row: Row[Any]) -> Adapter:
    return Adapter(
        name=row.name,
        base=row.base,
        state=AdapterState(row.state),
        created_at=row.created_at,
        updated_at=row.updated_at,
        live=row.live,
        canary=row.canary,
        canary_weight=row.canary_weight,
        canary_sticky=Sticky(row.canary_sticky),
        canary_rule=None if row.canary_rule is None else CanaryRule(**row.canary_rule),
        canary_since=row.canary_since,
        canary_end=canary_end_of(row.canary_end),
        previous=row.previous,
        live_since=row.live_since,
        pin=Tier(row.pin) if row.pin else None,
    )


def canary_end_of(value: dict[str, Any] | None) -> CanaryEnd | None:
    if value is None:
        return None
    figures = value["figures"]
    return CanaryEnd(**{**value, "figures": None if figures is None else CanaryFigures(**figures)})


def version_of(row: Row[Any]) -> Version:
    return Version(
        adapter=row.adapter,
        number=row.number,
        state=VersionState(row.state),
        source=row.source,
        created_at=row.created_at,
        digest=row.digest,
        size_bytes=row.size_bytes,
        info=info_of(row.info),
        failure=failure_of(row.failure),
        ready_at=row.ready_at,
    )


def version_values(version: Version) -> dict[str, Any]:
    """The columns that change during a version's life."""
    return {
        "state": version.state.value,
        "digest": version.digest,
        "size_bytes": version.size_bytes,
        "info": asdict(version.info) if version.info else None,
        "failure": failure_value(version.failure),
        "ready_at": version.ready_at,
    }


def info_of(value: dict[str, Any] | None) -> AdapterInfo | None:
    if value is None:
        return None
    return AdapterInfo(
        **{
            **value,
            "target_modules": tuple(value["target_modules"]),
            "warnings": tuple(value["warnings"]),
        }
    )


def failure_of(value: dict[str, Any] | None) -> Failure | None:
    return None if value is None else Failure(**value)


def failure_value(failure: Failure | None) -> dict[str, Any] | None:
    return None if failure is None else asdict(failure)


def alias_of(row: Row[Any]) -> Alias:
    return Alias(name=row.name, adapter=row.adapter, version=row.version, created_at=row.created_at)


def operation_of(row: Row[Any]) -> Operation:
    return Operation(
        id=row.id,
        kind=OperationKind(row.kind),
        adapter=row.adapter,
        version=row.version,
        state=OperationState(row.state),
        created_at=row.created_at,
        promote=row.promote,
        progress=1.0 if row.state == OperationState.SUCCEEDED else 0.0,
        failure=failure_of(row.failure),
        finished_at=row.finished_at,
    )


def resource_of(row: Row[Any]) -> Resource:
    return Resource(
        kind=ResourceKind(row.kind),
        name=row.name,
        body=row.body,
        created_at=row.created_at,
        updated_at=row.updated_at,
        state=ResourceState(row.state),
        tags=row.tags,
        of_adapter=row.adapter is not None,
    )


def resource_values(resource: Resource) -> dict[str, Any]:
    """The columns that change during a resource's life."""
    return {
        "state": resource.state.value,
        "body": dict(resource.body),
        "tags": dict(resource.tags),
        "updated_at": resource.updated_at,
    }


def key_of(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        digest=row.digest,
        created_at=row.created_at,
        adapters=tuple(row.adapters),
        requests_per_minute=row.requests_per_minute,
        tokens_per_minute=row.tokens_per_minute,
        revoked_at=row.revoked_at,
        access_key_id=row.access_key_id,
    )
