"""Keys that sign: made, known, revoked, and of another master secret."""

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from loramux_adapters.errors import SettingsInvalid, StorageFailed, Unauthenticated
from loramux_adapters.model import ApiKey, Role
from loramux_adapters.store.database import Database
from loramux_adapters.store.keys import SqlKeyStore
from loramux_serving.auth.access_keys import secret_access_key
from loramux_serving.auth.api_keys import digest, issue
from loramux_serving.auth.key_desk import KeyDesk
from loramux_serving.auth.keyring import ANONYMOUS, KeyRing
from loramux_serving.auth.master_key import FILE_NAME, MasterKey
from loramux_serving.auth.signers import Signers
from loramux_serving.auth.sigv4 import INVALID, UNRECOGNIZED, read, seconds
from loramux_serving.auth.verifier import Verifier
from loramux_serving.relay.ports import Authenticator
from loramux_serving.relay.signed_request import SignedRequest
from loramux_serving.settings import Settings
from tests.fakes.clock import FakeClock
from tests.fakes.signed_requests import NOW, signed

MASTER = "a-master-secret-of-32-characters-and-more"
CLOCK = FakeClock(now=seconds(NOW))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def master_key(home: Path, given: str | None = MASTER) -> MasterKey:
    return MasterKey(Settings(home=home, aws_master_key=None if given is None else SecretStr(given)))


def made(role: Role = Role.INFERENCE, *adapters: str, master: str = MASTER) -> tuple[ApiKey, str]:
    return issue("app", role, CLOCK, adapters=adapters, master=master)


def ring(master: MasterKey, *keys: ApiKey, anonymous: bool = False) -> KeyRing:
    return KeyRing(keys, anonymous=anonymous, signers=Signers(master, Verifier(CLOCK, clock_skew_s=300.0)))


def signed_by(key: ApiKey, secret: str) -> SignedRequest:
    assert key.access_key_id is not None
    return read(signed(access_key_id=key.access_key_id, secret=secret), b"{}")


def refusal(of: KeyRing, request: SignedRequest) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as raised:
        of.authenticate(request)
    return raised.value


# --- one key ---


def test_a_key_looks_as_aws_keys_do_and_is_not_taken_for_one() -> None:
    key, secret = made()
    assert key.access_key_id is not None
    assert re.fullmatch(r"LMXA[A-Z2-7]{16}", key.access_key_id)
    assert re.search(r"(A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AROA)[A-Z0-9]{16}", key.access_key_id) is None
    assert re.fullmatch(r"[A-Za-z0-9/+]{40}", secret)
    assert key.digest == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in repr(key)


def test_a_secret_follows_from_its_id_and_the_master_secret() -> None:
    key, secret = made()
    assert key.access_key_id is not None
    mac = hmac.new(MASTER.encode(), key.access_key_id.encode(), "sha256").digest()
    assert base64.b64encode(mac).decode()[:40] == secret == secret_access_key(MASTER, key.access_key_id)
    assert secret_access_key(MASTER + "x", key.access_key_id) != secret


def test_no_two_keys_are_alike() -> None:
    keys = [made() for _ in range(100)]
    assert len({secret for _, secret in keys}) == len({key.access_key_id for key, _ in keys}) == 100


# --- who signs ---


def test_who_signs_is_known(home: Path) -> None:
    key, secret = made(Role.ADMIN, "a*")
    of: Authenticator = ring(master_key(home), made()[0], key)
    principal = of.authenticate(signed_by(key, secret))
    assert (principal.key_id, principal.name, principal.role, principal.adapters) == (key.id, "app", key.role, ("a*",))


def test_its_secret_is_no_bearer_key(home: Path) -> None:
    key, secret = made()
    with pytest.raises(Unauthenticated):
        ring(master_key(home), key).authenticate(f"Bearer {secret}")
    assert ring(master_key(home), key, anonymous=True).authenticate(f"Bearer {secret}") is ANONYMOUS


def test_a_bearer_key_signs_nothing(home: Path) -> None:
    key, secret = issue("app", Role.INFERENCE, CLOCK)
    error = refusal(ring(master_key(home), key), read(signed(access_key_id=key.id, secret=secret), b"{}"))
    assert error.details["aws_code"] == UNRECOGNIZED


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_wrong_signature_is_refused_even_where_anyone_may_call(home: Path, anonymous: bool) -> None:
    key, secret = made()
    other, _ = made()
    revoked = dataclasses.replace(other, revoked_at=1.0)
    of = ring(master_key(home), key, revoked, anonymous=anonymous)
    wrong = refusal(of, signed_by(key, secret + "x"))
    unknown = refusal(of, signed_by(made()[0], secret))
    gone = refusal(of, signed_by(revoked, secret))
    assert [error.details["aws_code"] for error in (wrong, unknown, gone)] == [INVALID, UNRECOGNIZED, UNRECOGNIZED]
    assert "not known here" in unknown.message
    assert "revoked" in gone.message
    assert of.authenticate(signed_by(key, secret)).key_id == key.id


def test_without_signers_no_signature_is_good() -> None:
    key, secret = made()
    assert refusal(KeyRing([key], anonymous=True), signed_by(key, secret)).details["aws_code"] == UNRECOGNIZED


@pytest.mark.parametrize("given", [None, "another-master-secret-of-32-characters"])
def test_a_key_of_another_master_secret_is_warned_of_once(home: Path, given: str | None) -> None:
    key, secret = made()
    gone = dataclasses.replace(made()[0], revoked_at=1.0)
    with capture_logs() as lines:
        of = ring(master_key(home, given), key, gone)
        of.replace([key, gone])
        of.replace([key])
    assert [(line["log_level"], line["key"]) for line in lines] == [("warning", key.id)]
    error = refusal(of, signed_by(key, secret))
    assert error.details["aws_code"] == UNRECOGNIZED
    assert "another master secret" in error.message


# --- the master secret ---


def test_a_master_secret_is_made_when_it_is_needed(home: Path) -> None:
    master = master_key(home, None)
    assert master.secret is None
    assert not home.exists()
    secret = master.made()
    assert master.secret == master.made() == secret
    assert (home / FILE_NAME).read_text() == secret + "\n"
    assert stat.S_IMODE((home / FILE_NAME).stat().st_mode) == 0o600
    assert master_key(home, None).secret == secret


def test_a_given_master_secret_goes_before_the_kept_one_and_is_not_written(home: Path) -> None:
    assert master_key(home).made() == MASTER
    assert not home.exists()
    kept = master_key(home, None).made()
    assert master_key(home).secret == MASTER != kept


@pytest.mark.parametrize("given", ["", "short", "x" * 31, "two words that are long enough to be one"])
def test_a_master_secret_that_can_be_guessed_is_refused(home: Path, given: str) -> None:
    with pytest.raises(SettingsInvalid, match="LORAMUX_AWS_MASTER_KEY") as refused:
        master_key(home, given)
    home.mkdir()
    (home / FILE_NAME).write_text(given)
    (home / FILE_NAME).chmod(0o600)
    with pytest.raises(SettingsInvalid, match=FILE_NAME):
        master_key(home, None)
    assert len(given) < 2 or given not in refused.value.message


@pytest.fixture
def unwritable(home: Path) -> MasterKey:
    master = master_key(home, None)
    home.write_text("in the way")
    return master


def test_a_home_that_can_not_be_written(unwritable: MasterKey) -> None:
    with pytest.raises(StorageFailed, match="LORAMUX_AWS_MASTER_KEY"):
        unwritable.made()
    assert unwritable.secret is None


# --- the desk ---


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlKeyStore]:
    with closing(Database(f"sqlite:///{tmp_path}/registry.db")) as database:
        yield SqlKeyStore(database)


async def test_a_key_is_good_from_its_making_to_its_revoking(home: Path, store: SqlKeyStore) -> None:
    master = master_key(home, None)
    of = ring(master)
    desk = KeyDesk(store, of, CLOCK, master)
    (key, secret), (sent, sent_secret) = await asyncio.gather(
        desk.create("notebook", Role.ADMIN, adapters=(), signing=True),
        desk.create("shop", Role.INFERENCE, adapters=()),
    )
    assert sent.access_key_id is None
    assert of.authenticate(signed_by(key, secret)).key_id == key.id
    assert of.authenticate(f"Bearer {sent_secret}").key_id == sent.id
    await desk.revoke(key.id)
    assert "revoked" in refusal(of, signed_by(key, secret)).message


async def test_keys_are_good_after_a_restart(home: Path, store: SqlKeyStore) -> None:
    master = master_key(home, None)
    key, secret = await KeyDesk(store, ring(master), CLOCK, master).create("n", Role.ADMIN, adapters=(), signing=True)
    assert secret not in repr(store.list_keys())
    again = master_key(home, None)
    of = ring(again)
    await KeyDesk(store, of, CLOCK, again).open()
    assert of.authenticate(signed_by(key, secret)).key_id == key.id


async def test_keys_that_are_sent_need_no_master_secret(home: Path, store: SqlKeyStore) -> None:
    master = master_key(home, None)
    await KeyDesk(store, ring(master), CLOCK, master).create("shop", Role.INFERENCE, adapters=())
    assert master.secret is None


async def test_a_key_that_could_not_be_derived_again_is_not_made(unwritable: MasterKey, store: SqlKeyStore) -> None:
    with pytest.raises(StorageFailed):
        await KeyDesk(store, ring(unwritable), CLOCK, unwritable).create("n", Role.ADMIN, adapters=(), signing=True)
    assert store.list_keys() == ()


def test_the_database_has_no_secret(tmp_path: Path, store: SqlKeyStore) -> None:
    key, secret = made()
    store.create_key(key)
    kept = b"".join((tmp_path / name).read_bytes() for name in os.listdir(tmp_path) if name.startswith("registry.db"))
    assert key.digest.encode() in kept
    assert digest(secret) == key.digest
    for part in (secret.encode(), base64.b64decode(secret), MASTER.encode()):
        assert part not in kept
