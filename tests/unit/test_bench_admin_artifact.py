"""The body of an upload: a .tar.gz with the same tensors and content of its own."""

import io
import tarfile
from pathlib import Path

import pytest
from safetensors import deserialize, safe_open

from loramux_bench.admin.artifact import CONFIG, WEIGHTS, Artifact
from loramux_bench.errors import ScenarioError
from loramux_bench.scenario import find_source

PIRATE = find_source("deploy/demo/adapters/pirate")


def unpacked(body: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
        files = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read() for name, file in files.items() if file is not None}


def test_a_copy_has_the_same_tensors_and_other_bytes(tmp_path: Path) -> None:
    artifact = Artifact.read(PIRATE)
    one, two = (unpacked(b"".join(artifact.archive(stamp))) for stamp in ("one", "two"))
    assert one.keys() == {CONFIG, WEIGHTS}
    assert one[CONFIG] == two[CONFIG] == (PIRATE / CONFIG).read_bytes()
    assert one[WEIGHTS] != two[WEIGHTS]
    original, copied = (dict(deserialize(body)) for body in ((PIRATE / WEIGHTS).read_bytes(), one[WEIGHTS]))
    assert len(original) > 100
    assert original == copied

    (tmp_path / WEIGHTS).write_bytes(one[WEIGHTS])
    with safe_open(tmp_path / WEIGHTS, "numpy") as file:
        assert file.metadata() == {"format": "pt", "loramux_bench": "one"}


def test_the_same_stamp_gives_the_same_bytes() -> None:
    artifact = Artifact.read(PIRATE)
    assert b"".join(artifact.archive("one")) == b"".join(artifact.archive("one"))


def test_a_body_comes_in_small_pieces() -> None:
    """Else a large adapter would hold up the load beside it."""
    assert max(len(chunk) for chunk in Artifact.read(PIRATE).archive("one")) <= 256 * 1024


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (None, "needs adapter_config.json"),
        (b"", "no safetensors file"),
        (b"\xff" * 64, "header is too long"),
        (b"\x02\0\0\0\0\0\0\0{", "no safetensors file"),
        (b"\x02\0\0\0\0\0\0\0[]", "not that of a safetensors file"),
    ],
)
def test_what_is_no_adapter(tmp_path: Path, weights: bytes | None, said: str) -> None:
    (tmp_path / CONFIG).write_text("{}")
    if weights is not None:
        (tmp_path / WEIGHTS).write_bytes(weights)
    with pytest.raises(ScenarioError, match=said):
        Artifact.read(tmp_path)
