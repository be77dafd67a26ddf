"""Where the base model's checkpoint is."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from loramux_adapters.errors import EngineConfigInvalid
from loramux_serving.base.default import NAME, prepare_default_base
from loramux_serving.base.lock import Progress
from loramux_serving.base.s3 import WANTED, fetch_base
from loramux_serving.settings import Settings


def locate_base(settings: Settings, progress: Progress | None = None) -> tuple[Path, str]:
    """Directory of the checkpoint and the base's name; the embedded default is unpacked, what is in the hub or in S3 is
    fetched. Raises `EngineConfigInvalid`, `SourceUnavailable`, `StorageError`."""
    model = settings.engine.model
    if not model:
        return prepare_default_base(settings.cache, progress), settings.engine.name or NAME
    name = settings.engine.name or model.rstrip("/").rpartition("/")[2]
    if model.startswith("s3://"):
        artifacts = settings.artifacts
        directory = fetch_base(
            model,
            settings.cache,
            progress,
            endpoint_url=artifacts.s3_endpoint_url,
            timeout_s=artifacts.fetch_timeout_s,
        )
        return directory, name
    directory = Path(model).expanduser()
    if directory.is_dir():
        return directory.absolute(), name
    if directory.is_absolute() or model.startswith((".", "~")):
        raise EngineConfigInvalid(f"engine.model: there is no directory {model}.")
    try:
        revision = settings.engine.revision or None
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(WANTED))), name
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise EngineConfigInvalid(
            f"engine.model: {model!r} is neither a directory nor a model that the hub gives out: {error}"
        ) from error
