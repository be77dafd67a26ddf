"""The clients of the bench in a process of their own (`client_driver.py`), for tests."""

import datetime
import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.inference_server import InferenceServer

ROOT = Path(__file__).parents[2]

TARGETS: dict[str, dict[str, Any]] = {
    "openai-chat": {"api": "openai-chat"},
    "openai-completions": {"api": "openai-completions"},
    "tgi": {"api": "tgi"},
    "sagemaker": {"api": "sagemaker", "extra": {"EndpointName": "shop", "region": "eu-west-1"}},
    "litellm": {"api": "litellm"},
}
MODELS = {"litellm": "openai/pirate"}


@dataclass
class Driver:
    """Has clients ask, and gives the traces."""

    process: subprocess.Popen[str]

    def run(self, server: InferenceServer | str, api: str, *asks: dict[str, Any], **more: Any) -> dict[str, Any]:
        url = server if isinstance(server, str) else server.url
        target = TARGETS[api] | more.pop("target", {})
        whole = [
            {"model": MODELS.get(api, "pirate"), "prompt": "Ahoy?", "max_tokens": 3, "timeout_s": 10.0} | ask
            for ask in asks or ({},)
        ]
        for ask in whole:
            ask.setdefault("extra", target.get("extra", {}))
        order = {
            "target": target,
            "url": url + ("/v1" if api == "litellm" and url else ""),
            "key": more.pop("key", "AKID:secret" if api == "sagemaker" else "lmx_1"),
            "asks": whole,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order | more) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the driver ended: {self.process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def trace(self, server: InferenceServer | str, api: str, ask: dict[str, Any] | None = None, **more: Any) -> Any:
        return self.run(server, api, ask or {}, **more)["traces"][0]


def make_certificate(path: Path) -> Path:
    """Key and certificate of 127.0.0.1, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    own = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(own + made.public_bytes(serialization.Encoding.PEM))
    return path


@contextmanager
def driven_clients(trusted: Path) -> Iterator[Driver]:
    """`trusted` is the certificate that the clients trust, and the only one. No proxy, credentials or settings of this
    machine reach them."""
    nowhere = str(trusted.with_name("none"))
    environment = {
        name: value
        for name, value in os.environ.items()
        if "proxy" not in name.lower() and not name.startswith(("AWS_", "LITELLM_", "OPENAI_"))
    } | {
        "SSL_CERT_FILE": str(trusted),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "PYTHONPATH": str(ROOT / "bench"),
    }
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/fakes/client_driver.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    with process:
        yield Driver(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
