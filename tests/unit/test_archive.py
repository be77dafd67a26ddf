"""Archives of every kind that a hostile or careless sender can make."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loramux_adapters.artifacts.archive import extract
from loramux_adapters.artifacts.limits import ArchiveLimits
from loramux_adapters.errors import (
    ArchiveCorrupt,
    ArchiveTooLarge,
    ArchiveUnsafe,
    ArtifactError,
    ConfigInvalid,
    LoramuxError,
    SourceTooLarge,
)
from tests.fakes.adapter_files import (
    CONFIG,
    WEIGHTS,
    adapter_files,
    tar_bytes,
    tar_file,
    tar_members,
    tar_special,
    tiny_base,
    zip_bytes,
    zip_members,
)

MIB = 1 << 20
LIMITS = ArchiveLimits(max_archive_bytes=8 * MIB, max_unpacked_bytes=8 * MIB, max_files=16, max_ratio=200)
FILES = adapter_files(tiny_base(), dtype="F16")
Pack = Callable[..., bytes]
TOP = {CONFIG, WEIGHTS}


def plain_tar(files: dict[str, bytes], prefix: str = "") -> bytes:
    return tar_bytes(files, compress=False, prefix=prefix)


both = pytest.mark.parametrize("pack", [tar_bytes, zip_bytes])


def unpack(tmp_path: Path, content: bytes, limits: ArchiveLimits = LIMITS) -> dict[str, bytes]:
    """The files that come out. Checks that nothing was written beside them, whatever happened."""
    outside = tmp_path / "outside"
    into = outside / "deep" / "into"
    into.mkdir(parents=True)
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    try:
        extract(archive, into, limits)
        return {path.name: path.read_bytes() for path in into.iterdir()}
    finally:
        assert [path.name for path in outside.rglob("*") if not path.is_relative_to(into)] == ["deep"]
        assert not [path for path in into.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())]


def refused(tmp_path: Path, error: type[LoramuxError], content: bytes, limits: ArchiveLimits = LIMITS) -> LoramuxError:
    with pytest.raises(error) as caught:
        unpack(tmp_path, content, limits)
    assert caught.value.message.isprintable()
    return caught.value


@pytest.mark.parametrize("pack", [tar_bytes, plain_tar, zip_bytes])
@pytest.mark.parametrize("prefix", ["", "./", "adapter/", "./adapter/", "a/b/"])
def test_files_come_to_the_top_wherever_their_folder_is(tmp_path: Path, pack: Pack, prefix: str) -> None:
    assert unpack(tmp_path, pack(FILES, prefix=prefix)) == FILES


@both
def test_clutter_and_other_files_are_left_out(tmp_path: Path, pack: Pack) -> None:
    others = {
        "adapter/README.md": b"text",
        "adapter/tokenizer.json": b"{}",
        "__MACOSX/adapter/._adapter_config.json": b"\0\5\x16\7",
        "adapter/._adapter_model.safetensors": b"\0\5\x16\7",
        ".DS_Store": b"\0",
    }
    assert unpack(tmp_path, pack(others | {f"adapter/{name}": data for name, data in FILES.items()})) == FILES


@both
def test_the_top_s_adapter_is_taken_before_a_checkpoint_s(tmp_path: Path, pack: Pack) -> None:
    assert unpack(tmp_path, pack(FILES | {f"checkpoint-5/{CONFIG}": b"{}"})) == FILES


@both
def test_two_adapters_in_one_archive_are_refused(tmp_path: Path, pack: Pack) -> None:
    refused(tmp_path, ConfigInvalid, pack({f"a/{CONFIG}": b"{}", f"b/{CONFIG}": b"{}"}))


@both
def test_an_archive_without_a_config_unpacks_for_validation_to_tell(tmp_path: Path, pack: Pack) -> None:
    assert set(unpack(tmp_path, pack({f"a/{WEIGHTS}": b"x", "a/readme": b""}))) == {WEIGHTS}


@both
def test_of_a_pickle_only_the_name_is_kept(tmp_path: Path, pack: Pack) -> None:
    pickles = {"adapter_model.bin": b"PK\x03\x04 a torch file", "optimizer.pt": b"\x80\x04"}
    found = unpack(tmp_path, pack({CONFIG: FILES[CONFIG]} | pickles))
    assert found == {CONFIG: FILES[CONFIG], "adapter_model.bin": b"", "optimizer.pt": b""}


def test_long_names_and_pax_headers_are_read(tmp_path: Path) -> None:
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", format=kind) as archive:
            archive.addfile(*_member(tar_file("f" * 150 + "/" + CONFIG, FILES[CONFIG])))
        (tmp_path / str(kind)).mkdir()
        assert set(unpack(tmp_path / str(kind), buffer.getvalue())) == {CONFIG}


def _member(pair: tuple[tarfile.TarInfo, bytes]) -> tuple[tarfile.TarInfo, io.BytesIO]:
    return pair[0], io.BytesIO(pair[1])


# Path traversal.

ODD_NAMES = [
    "../evil.safetensors",
    "a/../../evil.safetensors",
    "a/..",
    "/evil.safetensors",
    "//evil.safetensors",
    "C:/evil.safetensors",
    "c:evil.safetensors",
    "..\\evil.safetensors",
    "a\\b.safetensors",
    "\\\\host\\share",
    "new\nline",
    "esc\x1b[2J",
    "rtl\u202egpj",
    "a/" * 9 + "deep",
    "x" * 300,
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_path_traversal_and_odd_names_in_tar_are_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path, ArchiveUnsafe, tar_bytes(FILES | {name: b"x"}))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_path_traversal_and_odd_names_in_zip_are_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path, ArchiveUnsafe, zip_bytes(FILES | {name: b"x"}))


def test_undecodable_names_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(*_member(tar_file("bad\udcff", b"x")))
    refused(tmp_path, ArchiveUnsafe, buffer.getvalue())


def test_a_name_with_a_nul_in_zip_is_refused(tmp_path: Path) -> None:
    content = zip_bytes({"adapter_config.jsonX.txt": b"{}"}).replace(b".jsonX.txt", b".json\0.txt")
    refused(tmp_path, ArchiveUnsafe, content)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", CONFIG])
def test_a_symlink_in_tar_is_refused(tmp_path: Path, target: str) -> None:
    members = [tar_file(CONFIG, b"{}"), tar_special(WEIGHTS, tarfile.SYMTYPE, target)]
    refused(tmp_path, ArchiveUnsafe, tar_members(members))


def test_a_symlink_to_a_directory_followed_by_a_file_in_it_is_refused(tmp_path: Path) -> None:
    members = [tar_special("a", tarfile.SYMTYPE, "/tmp"), tar_file("a/" + CONFIG, b"{}")]
    refused(tmp_path, ArchiveUnsafe, tar_members(members))


@pytest.mark.parametrize("target", ["/etc/passwd", CONFIG])
def test_a_hard_link_in_tar_is_refused(tmp_path: Path, target: str) -> None:
    members = [tar_file(CONFIG, b"{}"), tar_special(WEIGHTS, tarfile.LNKTYPE, target)]
    refused(tmp_path, ArchiveUnsafe, tar_members(members))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_a_device_file_in_tar_is_refused(tmp_path: Path, kind: bytes) -> None:
    refused(tmp_path, ArchiveUnsafe, tar_members([tar_special(WEIGHTS, kind)]))


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140666, 0o040755])
def test_a_symlink_or_device_file_in_zip_is_refused(tmp_path: Path, mode: int) -> None:
    info = zipfile.ZipInfo(WEIGHTS)
    info.external_attr = mode << 16
    refused(tmp_path, ArchiveUnsafe, zip_members([(info, b"/etc/passwd")]))


@pytest.mark.parametrize("twin", [CONFIG, "./" + CONFIG, CONFIG.upper()])
def test_duplicate_members_are_refused(tmp_path: Path, twin: str) -> None:
    refused(tmp_path, ArchiveUnsafe, tar_members([tar_file(CONFIG, b"{}"), tar_file(twin, b"{}")]))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_duplicate_members_in_zip_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo(CONFIG)
    refused(tmp_path, ArchiveUnsafe, zip_members([(info, b"{}"), (zipfile.ZipInfo(CONFIG), b"{}")]))


@pytest.mark.parametrize("names", [(CONFIG, f"{CONFIG}/{CONFIG}"), (f"{CONFIG}/{CONFIG}", CONFIG)])
def test_a_file_that_is_a_folder_too_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    refused(tmp_path, ArchiveUnsafe, tar_members([tar_file(name, b"{}") for name in names]))


# Bombs.


@both
def test_a_bomb_by_ratio_is_refused(tmp_path: Path, pack: Pack) -> None:
    error = refused(tmp_path, ArchiveTooLarge, pack({WEIGHTS: bytes(4 * MIB)}))
    assert "200 times" in error.message


@both
def test_the_ratio_does_not_count_below_a_mebibyte(tmp_path: Path, pack: Pack) -> None:
    assert len(unpack(tmp_path, pack({WEIGHTS: bytes(MIB - 20480)}))[WEIGHTS]) == MIB - 20480


@both
def test_a_bomb_by_total_bytes_is_refused(tmp_path: Path, pack: Pack) -> None:
    limits = ArchiveLimits(8 * MIB, 2 * MIB, 16, max_ratio=1e9)
    refused(tmp_path, ArchiveTooLarge, pack({WEIGHTS: bytes(MIB), "other": bytes(MIB + 1)}), limits)


@both
def test_a_bomb_by_file_count_is_refused(tmp_path: Path, pack: Pack) -> None:
    refused(tmp_path, ArchiveTooLarge, pack({f"f{index}": b"" for index in range(17)}))


def test_directories_count_as_files(tmp_path: Path) -> None:
    members = [tar_special(f"d{index}", tarfile.DIRTYPE) for index in range(17)]
    refused(tmp_path, ArchiveTooLarge, tar_members(members))


@both
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("inner.zip", b""),
        ("inner.tar.gz", b""),
        ("inner.7z", b""),
        ("inner", gzip.compress(b"x")),
        (WEIGHTS, zip_bytes({"a": b"b"})),
        ("a/b/deep.TGZ", b"x"),
    ],
)
def test_a_nested_archive_is_refused(tmp_path: Path, pack: Pack, name: str, content: bytes) -> None:
    refused(tmp_path, ArchiveTooLarge, pack({CONFIG: b"{}", name: content}))


def test_a_gzip_bomb_before_any_tar_is_refused(tmp_path: Path) -> None:
    member, _ = tar_file(WEIGHTS, bytes(MIB))
    header = member.tobuf()
    refused(tmp_path, ArchiveTooLarge, gzip.compress(header + bytes(40 * MIB)))


def test_a_bomb_behind_the_archive_s_end_is_refused(tmp_path: Path) -> None:
    inner = tar_bytes(FILES, compress=False)
    refused(tmp_path, ArchiveTooLarge, gzip.compress(inner + bytes(40 * MIB)))


def test_an_endless_long_name_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.type = tarfile.GNUTYPE_LONGNAME
    refused(tmp_path, ArchiveTooLarge, tar_members([(_sized(member, MIB), b"x" * MIB)]))


def test_an_endless_pax_header_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("pax")
    member.type = tarfile.XHDTYPE
    refused(tmp_path, ArchiveTooLarge, tar_members([(_sized(member, MIB), b"x" * MIB)]))


def _sized(member: tarfile.TarInfo, size: int) -> tarfile.TarInfo:
    member.size = size
    return member


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo(WEIGHTS)
    member.type = tarfile.GNUTYPE_SPARSE
    refused(tmp_path, ArchiveUnsafe, tar_members([(member, b"")]))


def test_a_zip_whose_directory_is_a_bomb_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(15_000):
            archive.writestr(f"{index:040}", b"")
    refused(tmp_path, ArchiveTooLarge, buffer.getvalue())


def test_a_zip_that_claims_too_little_is_corrupt(tmp_path: Path) -> None:
    content = _claim(zip_bytes({WEIGHTS: b"x" * 5000}), WEIGHTS, 100)
    refused(tmp_path, ArchiveCorrupt, content)


def test_a_zip_that_claims_too_much_is_corrupt(tmp_path: Path) -> None:
    content = _claim(zip_bytes({WEIGHTS: b"x" * 5000}), WEIGHTS, 6000)
    refused(tmp_path, ArchiveCorrupt, content)


def test_a_zip_bomb_that_claims_little_writes_little(tmp_path: Path) -> None:
    refused(tmp_path, ArchiveCorrupt, _claim(zip_bytes({WEIGHTS: bytes(6 * MIB)}), WEIGHTS, 10))
    assert sum(path.stat().st_size for path in (tmp_path / "outside").rglob("*") if path.is_file()) <= 10


def _claim(content: bytes, name: str, size: int) -> bytes:
    """Set the uncompressed size of the directory's only entry."""
    at = content.rindex(b"PK\x01\x02")
    return content[: at + 24] + struct.pack("<I", size) + content[at + 28 :]


def test_overlapping_zip_entries_are_refused(tmp_path: Path) -> None:
    """Two entries of the directory that point at one local header, as in Fifield's bombs."""
    content = bytearray(zip_bytes({"a.safetensors": b"x" * 100, "b.safetensors": b"x" * 100}))
    first, second = (_nth(content, b"PK\x01\x02", index) for index in (0, 1))
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    refused(tmp_path, ArchiveUnsafe, bytes(content))


def test_a_zip_entry_over_the_directory_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"a.safetensors": b"x" * 100}, compress=False))
    at = content.index(b"PK\x01\x02")
    content[at + 20 : at + 28] = struct.pack("<II", 130, 130)
    refused(tmp_path, ArchiveUnsafe, bytes(content))


def _nth(content: bytes | bytearray, mark: bytes, index: int) -> int:
    at = -1
    for _ in range(index + 1):
        at = content.index(mark, at + 1)
    return at


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_bytes(FILES))
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flags] |= 1
    assert "encrypted" in refused(tmp_path, ArchiveUnsafe, bytes(content)).message


def test_an_unusual_compression_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(CONFIG, b"{}")
    refused(tmp_path, ArchiveCorrupt, buffer.getvalue())


def test_an_archive_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    refused(tmp_path, SourceTooLarge, b"rubbish" * 10, ArchiveLimits(69, 1 << 30, 16, 200))


# What is broken.


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"BZh91AY", b"\x1f\x8b", b"PK\x03\x04", b"PK\x05\x06", bytes(600)]
)
def test_what_is_no_archive_is_corrupt(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path, ArchiveCorrupt, content)


def test_gzip_of_what_is_no_tar_is_corrupt(tmp_path: Path) -> None:
    refused(tmp_path, ArchiveCorrupt, gzip.compress(b"hello" * 500))


@both
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_archive_is_corrupt(tmp_path: Path, pack: Pack, share: float) -> None:
    content = pack(FILES)
    refused(tmp_path, ArchiveCorrupt, content[: int(len(content) * share)])


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    content = bytearray(plain_tar({CONFIG: b"{}", WEIGHTS: b"x"}))
    content[1024:1034] = b"\xff" * 10
    refused(tmp_path, ArchiveCorrupt, bytes(content))


def test_a_wrong_checksum_is_corrupt(tmp_path: Path) -> None:
    content = bytearray(tar_bytes(FILES))
    content[-8] ^= 0xFF
    refused(tmp_path, ArchiveCorrupt, bytes(content))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_corruption_never_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    packs: list[Pack] = [tar_bytes, plain_tar, zip_bytes]
    pack = data.draw(st.sampled_from(packs))
    content = bytearray(pack({CONFIG: FILES[CONFIG], "a/" + WEIGHTS: b"weights" * 30}))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        found = unpack(tmp_path_factory.mktemp("archive"), bytes(content))
    except ArtifactError as error:
        text = error.message
    else:
        text = "".join(found)
    assert text.isprintable()
