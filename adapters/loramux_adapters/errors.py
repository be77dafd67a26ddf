"""Every error that loramux raises on purpose.

    LoramuxError
    ├── RequestInvalid              invalid_request          the call itself is wrong
    │   ├── NameInvalid             invalid_name
    │   ├── SourceNotAllowed        source_not_allowed       scheme or path outside what the operator allows
    │   ├── LimitExceeded           limit_exceeded           more than there may be
    │   └── OperationUnknown        operation_unknown        of an interface that is served in part
    ├── AuthError
    │   ├── Unauthenticated         unauthenticated          no key, an unknown or revoked one, or a bad signature
    │   └── Forbidden               forbidden                a key without the right for this
    ├── NotFound                    not_found
    │   ├── AdapterNotFound         adapter_not_found
    │   ├── VersionNotFound         version_not_found
    │   ├── AliasNotFound           alias_not_found
    │   ├── OperationNotFound       operation_not_found
    │   ├── KeyNotFound             key_not_found
    │   ├── ReplicaNotFound         replica_not_found
    │   ├── ResourceNotFound        resource_not_found       of SageMaker's interface
    │   └── ModelNotFound           model_not_found          a name that inference does not know
    │       ├── EndpointNotFound    endpoint_not_found       as SageMaker's clients name models
    │       ├── ComponentNotFound   component_not_found
    │       └── ComponentNotReady   component_not_ready      (retryable) it has never been ready yet
    ├── Conflict                    conflict
    │   ├── NameTaken               name_taken
    │   ├── AdapterBusy             adapter_busy             being deleted
    │   ├── VersionNotReady         version_not_ready
    │   ├── VersionInUse            version_in_use           live, canary or aliased
    │   └── NoPreviousVersion       no_previous_version
    ├── ArtifactError                                        the adapter that was sent cannot be served
    │   ├── SourceNotFound          source_not_found
    │   ├── SourceForbidden         source_forbidden
    │   ├── SourceTooLarge          source_too_large
    │   ├── SourceUnavailable       source_unavailable       (retryable)
    │   ├── ArchiveUnsafe           archive_unsafe           path traversal, links, devices
    │   ├── ArchiveTooLarge         archive_too_large        bombs: bytes, ratio, files, nesting
    │   ├── ArchiveCorrupt          archive_corrupt
    │   ├── ConfigInvalid           config_invalid           adapter_config.json missing, not JSON, not LoRA
    │   ├── OptionUnsupported       option_unsupported       a LoRA option that the engine does not serve
    │   ├── RankTooLarge            rank_too_large
    │   ├── WeightsMissing          weights_missing
    │   ├── WeightsUnsafe           weights_unsafe           pickle or .bin: safetensors only
    │   ├── WeightsCorrupt          weights_corrupt
    │   ├── WeightsMismatch         weights_mismatch         names or shapes that do not fit the base
    │   └── WeightsNotFinite        weights_not_finite       NaN or Inf
    ├── StorageError
    │   ├── StorageFull             storage_full             (retryable)
    │   └── StorageFailed           storage_failed           (retryable) the disk or the database did not answer
    ├── EngineError
    │   ├── EngineUnavailable       engine_unavailable       (retryable)
    │   ├── EngineTimeout           engine_timeout           (retryable)
    │   ├── EngineRejected          engine_rejected          the engine refused an adapter
    │   ├── EngineFailed            engine_failed            (retryable) it closed or answered rubbish mid-request
    │   ├── AdapterLost             adapter_lost             (retryable) it forgot an adapter that it had
    │   └── EngineConfigInvalid     engine_config_invalid    a spec from which no engine can be started
    ├── AdmissionError
    │   ├── RateLimited             rate_limited             (retryable) a key's or adapter's limit
    │   ├── QueueFull               queue_full               (retryable)
    │   └── QueueTimeout            queue_timeout            (retryable)
    ├── OperationInterrupted        operation_interrupted    (retryable) the gateway stopped before it was done
    └── SettingsInvalid             settings_invalid

`code` never changes once released: clients branch on it. Only `loramux_serving.http_errors` knows HTTP statuses.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class LoramuxError(Exception):
    """Base of the tree. `message` is one sentence that says what is wrong and, where it can, what to do."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        self.retry_after_s = retry_after_s


class RequestInvalid(LoramuxError):
    code = "invalid_request"


class NameInvalid(RequestInvalid):
    code = "invalid_name"


class SourceNotAllowed(RequestInvalid):
    code = "source_not_allowed"


class LimitExceeded(RequestInvalid):
    code = "limit_exceeded"


class OperationUnknown(RequestInvalid):
    code = "operation_unknown"


class AuthError(LoramuxError):
    code = "auth_error"


class Unauthenticated(AuthError):
    code = "unauthenticated"


class Forbidden(AuthError):
    code = "forbidden"


class NotFound(LoramuxError):
    code = "not_found"


class AdapterNotFound(NotFound):
    code = "adapter_not_found"


class VersionNotFound(NotFound):
    code = "version_not_found"


class AliasNotFound(NotFound):
    code = "alias_not_found"


class OperationNotFound(NotFound):
    code = "operation_not_found"


class KeyNotFound(NotFound):
    code = "key_not_found"


class ReplicaNotFound(NotFound):
    code = "replica_not_found"


class ResourceNotFound(NotFound):
    code = "resource_not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class EndpointNotFound(ModelNotFound):
    code = "endpoint_not_found"


class ComponentNotFound(ModelNotFound):
    code = "component_not_found"


class ComponentNotReady(ModelNotFound):
    code = "component_not_ready"
    retryable = True


class Conflict(LoramuxError):
    code = "conflict"


class NameTaken(Conflict):
    code = "name_taken"


class AdapterBusy(Conflict):
    code = "adapter_busy"


class VersionNotReady(Conflict):
    code = "version_not_ready"


class VersionInUse(Conflict):
    code = "version_in_use"


class NoPreviousVersion(Conflict):
    code = "no_previous_version"


class ArtifactError(LoramuxError):
    code = "artifact_error"


class SourceNotFound(ArtifactError):
    code = "source_not_found"


class SourceForbidden(ArtifactError):
    code = "source_forbidden"


class SourceTooLarge(ArtifactError):
    code = "source_too_large"


class SourceUnavailable(ArtifactError):
    code = "source_unavailable"
    retryable = True


class ArchiveUnsafe(ArtifactError):
    code = "archive_unsafe"


class ArchiveTooLarge(ArtifactError):
    code = "archive_too_large"


class ArchiveCorrupt(ArtifactError):
    code = "archive_corrupt"


class ConfigInvalid(ArtifactError):
    code = "config_invalid"


class OptionUnsupported(ArtifactError):
    code = "option_unsupported"


class RankTooLarge(ArtifactError):
    code = "rank_too_large"


class WeightsMissing(ArtifactError):
    code = "weights_missing"


class WeightsUnsafe(ArtifactError):
    code = "weights_unsafe"


class WeightsCorrupt(ArtifactError):
    code = "weights_corrupt"


class WeightsMismatch(ArtifactError):
    code = "weights_mismatch"


class WeightsNotFinite(ArtifactError):
    code = "weights_not_finite"


class StorageError(LoramuxError):
    code = "storage_error"


class StorageFull(StorageError):
    code = "storage_full"
    retryable = True


class StorageFailed(StorageError):
    code = "storage_failed"
    retryable = True


class EngineError(LoramuxError):
    code = "engine_error"


class EngineUnavailable(EngineError):
    code = "engine_unavailable"
    retryable = True


class EngineTimeout(EngineError):
    code = "engine_timeout"
    retryable = True


class EngineRejected(EngineError):
    code = "engine_rejected"


class EngineFailed(EngineError):
    code = "engine_failed"
    retryable = True


class AdapterLost(EngineError):
    code = "adapter_lost"
    retryable = True


class EngineConfigInvalid(EngineError):
    code = "engine_config_invalid"


class AdmissionError(LoramuxError):
    code = "admission_error"


class RateLimited(AdmissionError):
    code = "rate_limited"
    retryable = True


class QueueFull(AdmissionError):
    code = "queue_full"
    retryable = True


class QueueTimeout(AdmissionError):
    code = "queue_timeout"
    retryable = True


class OperationInterrupted(LoramuxError):
    code = "operation_interrupted"
    retryable = True


class SettingsInvalid(LoramuxError):
    code = "settings_invalid"


def classes(root: type[LoramuxError] = LoramuxError) -> Iterator[type[LoramuxError]]:
    """Every class of the tree, the root first."""
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


def revive(code: str, message: str) -> LoramuxError:
    """The error of a kept failure."""
    for cls in classes():
        if cls.code == code:
            return cls(message)
    return LoramuxError(message)
