"""Where the base model's checkpoint is."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from loramux_adapters.errors import EngineConfigInvalid
from loramux_serving.base.default import NAME, Progress, prepare_default_base
from loramux_serving.settings import Settings

_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def locate_base(settings: Settings, progress: Progress | None = None) -> tuple[Path, str]:
    """Directory of the checkpoint and the base's name; the embedded default is unpacked, a hub's model downloaded.
    Raises `EngineConfigInvalid`, `StorageError`."""
    model = settings.engine.model
    if not model:
        return prepare_default_base(settings.cache, progress), settings.engine.name or NAME
    name = settings.engine.name or model.rstrip("/").rpartition("/")[2]
    directory = Path(model).expanduser()
    if directory.is_dir():
        return directory.absolute(), name
    if directory.is_absolute() or model.startswith((".", "~")):
        raise EngineConfigInvalid(f"engine.model: there is no directory {model}.")
    try:
        return Path(snapshot_download(model, allow_patterns=list(_WANTED))), name
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise EngineConfigInvalid(
            f"engine.model: {model!r} is neither a directory nor a model that the hub gives out: {error}"
        ) from error
