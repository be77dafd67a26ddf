"""Local directories, archives and uploads, and the choice among sources by scheme."""

import os
from pathlib import Path

import pytest

from loramux_adapters.artifacts.limits import ArchiveLimits
from loramux_adapters.artifacts.local import LocalSource
from loramux_adapters.artifacts.sources import Sources, scheme_of
from loramux_adapters.artifacts.upload import UploadSource
from loramux_adapters.errors import (
    ArchiveCorrupt,
    ArchiveTooLarge,
    RequestInvalid,
    SourceForbidden,
    SourceNotAllowed,
    SourceNotFound,
    WeightsUnsafe,
)
from loramux_adapters.ports import ArtifactSource, Progress
from loramux_adapters.validate import validate
from tests.fakes.adapter_files import (
    CONFIG,
    WEIGHTS,
    adapter_files,
    tar_bytes,
    tiny_base,
    write_adapter,
    write_files,
    zip_bytes,
)

MIB = 1 << 20
LIMITS = ArchiveLimits(max_archive_bytes=MIB, max_unpacked_bytes=MIB, max_files=8, max_ratio=200)
BASE = tiny_base()
FILES = adapter_files(BASE)


def ignore(_done: int, _total: int | None) -> None:
    pass


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def local(root: Path) -> Sources:
    return Sources({"file": LocalSource([root], LIMITS)})


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}", "FILE:{}", "{}/", "{}/../adapter"])
def test_a_directory_is_copied(root: Path, into: Path, form: str) -> None:
    write_files(root / "adapter", FILES | {"README.md": b"x", "optimizer.pt": b"pickle", "sub/x.safetensors": b""})
    local(root).fetch(form.format(root / "adapter"), into, ignore)
    assert files_of(into) == FILES | {"optimizer.pt": b""}


@pytest.mark.parametrize("content", [tar_bytes(FILES), zip_bytes(FILES, prefix="a/"), tar_bytes(FILES, compress=False)])
def test_an_archive_is_unpacked_whatever_its_name(root: Path, into: Path, content: bytes) -> None:
    (root / "a b.dat").write_bytes(content)
    seen: list[tuple[int, int | None]] = []
    local(root).fetch(f"file://{root}/a%20b.dat", into, lambda done, total: seen.append((done, total)))
    assert files_of(into) == FILES
    assert seen[-1] == (len(content), len(content))


def test_pickled_weights_arrive_as_a_name_for_validation_to_refuse(root: Path, into: Path) -> None:
    write_files(root / "adapter", {CONFIG: FILES[CONFIG], "adapter_model.bin": b"\x80\x04"})
    local(root).fetch(str(root / "adapter"), into, ignore)
    assert files_of(into)["adapter_model.bin"] == b""
    with pytest.raises(WeightsUnsafe):
        validate(into, BASE, max_rank=None, check_finite=True)


@pytest.mark.parametrize(
    "source",
    ["/etc", "/", "/etc/passwd", "{root}/../outside", "{root}x", "{root}/link", "{root}/link/adapter", "/absent"],
)
def test_a_source_outside_the_allowed_roots_is_refused(root: Path, into: Path, source: str) -> None:
    write_adapter(root.parent / "outside" / "adapter", BASE)
    write_adapter(root.parent / "rootx", BASE)
    (root / "link").symlink_to(root.parent / "outside")
    for form in ("{}", "file://{}"):
        with pytest.raises(SourceNotAllowed, match="outside the roots"):
            local(root).check(form.format(source.format(root=root)))
        with pytest.raises(SourceNotAllowed):
            local(root).fetch(form.format(source.format(root=root)), into, ignore)
    assert files_of(into) == {}


def test_whether_a_path_outside_exists_is_not_told(root: Path) -> None:
    messages = set()
    for path in ("/etc/passwd", "/etc/absent"):
        with pytest.raises(SourceNotAllowed) as caught:
            local(root).check(path)
        messages.add(caught.value.message.replace(path, ""))
    assert len(messages) == 1


def test_a_link_within_the_roots_is_followed(root: Path, into: Path) -> None:
    write_files(root / "blobs", {"1": FILES[CONFIG], "2": FILES[WEIGHTS]})
    (root / "snapshot").mkdir()
    (root / "snapshot" / CONFIG).symlink_to("../blobs/1")
    (root / "snapshot" / WEIGHTS).symlink_to(root / "blobs" / "2")
    (root / "latest").symlink_to("snapshot")
    local(root).fetch(str(root / "latest"), into, ignore)
    assert files_of(into) == FILES
    assert not any(path.is_symlink() for path in into.iterdir())


def test_a_file_that_links_outside_the_roots_is_refused(root: Path, into: Path) -> None:
    write_files(root / "adapter", {WEIGHTS: b"x"})
    (root.parent / "secret").write_bytes(b"secret")
    (root / "adapter" / CONFIG).symlink_to(root.parent / "secret")
    with pytest.raises(SourceNotAllowed, match="link"):
        local(root).fetch(str(root / "adapter"), into, ignore)
    assert b"secret" not in files_of(into).values()


def test_links_that_go_in_circles_are_refused(root: Path, into: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises((SourceNotAllowed, SourceNotFound)):
        local(root).fetch(str(root / "a"), into, ignore)


def test_a_pipe_is_refused_and_does_not_hang(root: Path, into: Path) -> None:
    (root / "adapter").mkdir()
    os.mkfifo(root / "adapter" / CONFIG)
    os.mkfifo(root / "pipe")
    for name in ("adapter", "pipe"):
        with pytest.raises(SourceNotFound, match=r"regular file|neither a file"):
            local(root).fetch(str(root / name), into, ignore)


def test_an_absent_source_is_not_found(root: Path, into: Path) -> None:
    local(root).check(str(root / "absent"))
    with pytest.raises(SourceNotFound):
        local(root).fetch(str(root / "absent"), into, ignore)


def test_a_source_that_may_not_be_read_is_forbidden(root: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.tgz").write_bytes(tar_bytes(FILES))

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceForbidden):
        local(root).fetch(str(root / "a.tgz"), into, ignore)


def test_a_directory_that_is_too_large_is_refused(root: Path, into: Path) -> None:
    write_files(root / "adapter", {CONFIG: b"{}", WEIGHTS: bytes(MIB)})
    with pytest.raises(ArchiveTooLarge):
        local(root).fetch(str(root / "adapter"), into, ignore)


def test_a_directory_of_too_many_files_is_refused(root: Path, into: Path) -> None:
    write_files(root / "adapter", {f"{index}.safetensors": b"" for index in range(9)})
    with pytest.raises(ArchiveTooLarge):
        local(root).fetch(str(root / "adapter"), into, ignore)


@pytest.mark.parametrize("source", ["adapter", "./adapter", "~/adapter", "../adapter"])
def test_a_relative_path_is_refused(root: Path, source: str) -> None:
    with pytest.raises(SourceNotAllowed, match="absolute"):
        local(root).check(source)


def test_without_roots_nothing_local_is_allowed(root: Path) -> None:
    with pytest.raises(SourceNotAllowed, match="no roots"):
        Sources({"file": LocalSource([], LIMITS)}).check(str(root))


@pytest.mark.parametrize("source", ["file://host/a", "file:///a?b", "file:///a#b", "file://[/a", "file:///a%00b"])
def test_a_malformed_file_address_is_refused(root: Path, source: str) -> None:
    with pytest.raises(RequestInvalid):
        local(root).check(source)


@pytest.mark.parametrize("source", ["", "x" * 3000, "/a\0b", "/a\nb", "s3://a\x1b"])
def test_what_is_no_address_is_refused(root: Path, source: str) -> None:
    with pytest.raises(RequestInvalid):
        local(root).check(source)


@pytest.mark.parametrize(
    "source", ["https://example.com/a.tgz", "ftp://a/b", "s3://bucket/key", "hf://a/b", "upload:x", "data:,x", "C:\\x"]
)
def test_a_scheme_that_is_not_allowed_is_refused(root: Path, source: str) -> None:
    with pytest.raises(SourceNotAllowed, match="allowed are: file"):
        local(root).check(source)


def test_with_no_scheme_nothing_is_allowed() -> None:
    with pytest.raises(SourceNotAllowed, match="none"):
        Sources({}).check("/a")


def test_the_source_of_the_scheme_is_asked(tmp_path: Path) -> None:
    asked: list[str] = []

    class Recorder:
        def check(self, source: str) -> None:
            asked.append(f"check {source}")

        def fetch(self, source: str, into: Path, progress: Progress) -> None:
            asked.append(f"fetch {source}")

        def forget(self, source: str) -> None:
            asked.append(f"forget {source}")

    recorder: ArtifactSource = Recorder()
    sources = Sources({"s3": recorder})
    sources.fetch("S3://a/b", tmp_path, ignore)
    sources.forget("s3://a/b")
    sources.forget("hf://of/old")
    assert asked == ["check S3://a/b", "fetch S3://a/b", "forget s3://a/b"]
    assert [scheme_of(source) for source in ("/a", "a", "file:///a", "hf://a/b", "upload:a")] == [
        "file",
        "file",
        "file",
        "hf",
        "upload",
    ]


# Uploads.


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


def test_an_upload_is_an_archive_or_a_directory(uploads: Path, tmp_path: Path) -> None:
    (uploads / "one").write_bytes(zip_bytes(FILES))
    write_adapter(uploads / "two", BASE)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Sources({"upload": UploadSource(uploads, LIMITS)}).fetch(f"upload:{name}", tmp_path / name, ignore)
        assert files_of(tmp_path / name) == FILES
        assert (uploads / name).exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "..", ".hidden", "a b", "x" * 300, "//a"])
def test_an_upload_s_name_can_not_leave_its_directory(uploads: Path, name: str) -> None:
    with pytest.raises(RequestInvalid, match="upload:<name>"):
        UploadSource(uploads, LIMITS).check(f"upload:{name}")


def test_an_upload_that_is_gone_is_not_found(uploads: Path, into: Path) -> None:
    with pytest.raises(SourceNotFound):
        UploadSource(uploads, LIMITS).fetch("upload:gone", into, ignore)


def test_an_upload_that_is_rubbish_is_corrupt(uploads: Path, into: Path) -> None:
    (uploads / "one").write_bytes(b"rubbish")
    with pytest.raises(ArchiveCorrupt):
        UploadSource(uploads, LIMITS).fetch("upload:one", into, ignore)


def test_a_forgotten_upload_is_deleted_and_other_places_are_not(uploads: Path, root: Path) -> None:
    (uploads / "one").write_bytes(b"x")
    write_adapter(uploads / "two", BASE)
    adapter = write_adapter(root / "adapter", BASE)
    sources = Sources({"file": LocalSource([root], LIMITS), "upload": UploadSource(uploads, LIMITS)})
    for source in ("upload:one", "upload:two", "upload:one", str(adapter)):
        sources.forget(source)
    assert list(uploads.iterdir()) == []
    assert files_of(adapter) == FILES
