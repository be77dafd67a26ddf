"""Keys to sign requests with, as AWS' are: an access key id, and a secret that follows from it. Pure.

The gateway must know the secret to check a signature, and keeps none: it derives each one again from the access key
id and one master secret.
"""

import hmac
from base64 import b32encode, b64encode
from collections.abc import Callable

PREFIX = "LMXA"
"""Begins every access key id that loramux makes. With it an id has the length and the letters of AWS' own, which is
what SDKs and their settings files take; but AWS' begin with AKIA, ASIA, ABIA or ACCA, and whoever looks for leaked
AWS keys, GitHub and AWS among them, looks for these: an alarm over a loramux key would reach the wrong people."""


def new_access_key_id(random_bytes: Callable[[int], bytes]) -> str:
    """The prefix and 16 letters of A-Z and 2-7: 80 random bits."""
    return PREFIX + b32encode(random_bytes(10)).decode("ascii")


def secret_access_key(master: str, access_key_id: str) -> str:
    """HMAC-SHA256 of the access key id under the master secret, its first 30 bytes in base64: 40 characters, as AWS'
    secrets have."""
    return b64encode(hmac.digest(master.encode(), access_key_id.encode(), "sha256")[:30]).decode("ascii")
