import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from loramux_adapters.errors import SettingsInvalid, StorageFailed
from loramux_serving.auth.admin_key import FILE_NAME, check_exposure, find_admin_key, make_admin_key, open_admin_key
from loramux_serving.auth.api_keys import digest
from loramux_serving.settings import Settings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def settings(home: Path, host: str = "127.0.0.1", admin_key: str | None = None) -> Settings:
    return Settings(home=home, host=host, admin_key=None if admin_key is None else SecretStr(admin_key))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_a_key_for_its_owner_only(home: Path) -> None:
    key = open_admin_key(settings(home), has_keys=False)
    assert key.made
    assert key.path == home / FILE_NAME
    assert (home / FILE_NAME).read_text() == key.secret + "\n"
    assert (mode(home / FILE_NAME), mode(home)) == (0o600, 0o700)
    assert os.listdir(home) == [FILE_NAME]
    assert key.digest == digest(key.secret)
    assert key.secret not in repr(key)


def test_a_wide_umask_changes_nothing(home: Path) -> None:
    former = os.umask(0)
    try:
        make_admin_key(home)
    finally:
        os.umask(former)
    assert mode(home / FILE_NAME) == 0o600


def test_later_starts_find_the_same_key(home: Path) -> None:
    first = open_admin_key(settings(home), has_keys=False)
    second = open_admin_key(settings(home), has_keys=False)
    assert second.secret == first.secret
    assert not second.made


def test_processes_that_start_at_once_agree_on_one_key(home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: make_admin_key(home), range(16)))
    assert len({key.secret for key in keys}) == 1
    assert sum(key.made for key in keys) == 1
    assert os.listdir(home) == [FILE_NAME]


def test_a_given_key_is_not_written(home: Path) -> None:
    key = open_admin_key(settings(home, admin_key="given-from-outside"), has_keys=False)
    assert (key.secret, key.path, key.made) == ("given-from-outside", None, False)
    assert not home.exists()


def test_a_given_key_goes_before_the_kept_one(home: Path) -> None:
    make_admin_key(home)
    assert open_admin_key(settings(home, admin_key="given"), has_keys=False).secret == "given"


def test_a_file_open_to_others_is_closed_with_a_warning(home: Path) -> None:
    secret = make_admin_key(home).secret
    (home / FILE_NAME).chmod(0o644)
    with capture_logs() as lines:
        assert open_admin_key(settings(home), has_keys=False).secret == secret
    assert mode(home / FILE_NAME) == 0o600
    assert [line["log_level"] for line in lines] == ["warning"]
    assert secret not in str(lines)


def test_a_file_that_can_not_be_closed_is_warned_of(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    secret = make_admin_key(home).secret
    (home / FILE_NAME).chmod(0o640)
    monkeypatch.setattr(os, "fchmod", refuse)
    with capture_logs() as lines:
        found = find_admin_key(settings(home))
    assert found is not None
    assert found.secret == secret
    assert lines[0]["error"] == "Operation not permitted"


def test_a_mounted_secret_behind_a_link_is_read(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (tmp_path / "mounted").write_text("from-a-mount")
    (tmp_path / "mounted").chmod(0o600)
    (home / FILE_NAME).symlink_to(tmp_path / "mounted")
    assert open_admin_key(settings(home, host="0.0.0.0"), has_keys=False).secret == "from-a-mount"


@pytest.mark.parametrize("content", ["", "\n", "two words", "ключ", "a\x00b"])
def test_an_unusable_key_is_refused(home: Path, content: str) -> None:
    home.mkdir()
    (home / FILE_NAME).write_text(content)
    (home / FILE_NAME).chmod(0o600)
    with pytest.raises(SettingsInvalid, match=FILE_NAME):
        open_admin_key(settings(home), has_keys=False)


def test_an_unusable_given_key_is_refused(home: Path) -> None:
    with pytest.raises(SettingsInvalid, match="LORAMUX_ADMIN_KEY"):
        open_admin_key(settings(home, admin_key=" "), has_keys=False)


def test_a_home_that_is_no_directory_is_an_error_of_storage(home: Path) -> None:
    home.write_text("in the way")
    with pytest.raises(StorageFailed):
        make_admin_key(home)
    with pytest.raises(StorageFailed):
        find_admin_key(settings(home))


def test_a_write_that_fails_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed, match="No space left"):
        make_admin_key(home)
    assert os.listdir(home) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_loopback_needs_no_key(home: Path, host: str) -> None:
    check_exposure(settings(home, host), has_keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "gateway.example.org"])
def test_any_other_address_needs_a_key(home: Path, host: str) -> None:
    check_exposure(settings(home, host), has_keys=True)
    with pytest.raises(SettingsInvalid, match="LORAMUX_ADMIN_KEY"):
        check_exposure(settings(home, host), has_keys=False)


def test_a_refused_start_makes_no_key_so_the_next_is_refused_too(home: Path) -> None:
    for _ in range(2):
        with pytest.raises(SettingsInvalid):
            open_admin_key(settings(home, "0.0.0.0"), has_keys=False)
    assert not home.exists()


def test_serving_without_keys_is_no_exemption(home: Path) -> None:
    with pytest.raises(SettingsInvalid):
        open_admin_key(Settings(home=home, host="0.0.0.0", allow_anonymous=True), has_keys=False)


def test_what_counts_as_a_key_for_exposure(tmp_path: Path) -> None:
    assert open_admin_key(settings(tmp_path / "a", "0.0.0.0", admin_key="given"), has_keys=False).path is None
    assert open_admin_key(settings(tmp_path / "b", "0.0.0.0"), has_keys=True).made
    kept = make_admin_key(tmp_path / "c")
    assert open_admin_key(settings(tmp_path / "c", "0.0.0.0"), has_keys=False).secret == kept.secret
