"""The master secret from which the secrets of all signing keys follow: given from outside, or kept in `home`/aws.key
and made when the first such key is."""

from threading import Lock

from loramux_adapters.errors import SettingsInvalid
from loramux_serving.auth.secret_file import SecretFile, usable
from loramux_serving.settings import Settings

FILE_NAME = "aws.key"
MIN_CHARACTERS = 32
"""Whoever holds a signing key holds a text and its HMAC under the master secret, and can try guesses at it."""

_NOUN = "master secret of AWS keys"
_VARIABLE = "LORAMUX_AWS_MASTER_KEY"


class MasterKey:
    """Any thread."""

    def __init__(self, settings: Settings) -> None:
        """Takes the secret that was given, which is never written anywhere, else the kept one. Raises
        `SettingsInvalid` where it can not be used and `StorageFailed` where the file can not be read."""
        self._file = SecretFile(settings.home / FILE_NAME, _NOUN, _VARIABLE)
        self._lock = Lock()
        given = settings.aws_master_key
        if given is None:
            self._secret = self._file.read()
        else:
            self._secret = usable(given.get_secret_value(), _NOUN, _VARIABLE)
        if self._secret is not None and len(self._secret) < MIN_CHARACTERS:
            origin = self._file.path if given is None else _VARIABLE
            raise SettingsInvalid(f"The {_NOUN} in {origin} must have {MIN_CHARACTERS} characters or more.")

    @property
    def secret(self) -> str | None:
        """None while there is none."""
        return self._secret

    def made(self) -> str:
        """The secret; where there was none, it is made first, and durable on return. Blocks on the disk. Raises
        `StorageFailed`."""
        with self._lock:
            if self._secret is None:
                self._secret, _ = self._file.make()
            return self._secret
