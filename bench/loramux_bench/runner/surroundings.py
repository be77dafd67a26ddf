"""Where a run was made: what somebody needs who wants to repeat it, or wonders why two runs differ."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil


def surroundings() -> dict[str, Any]:
    """Of this machine and this process; no host name, no keys."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "cpu_model": _cpu_model(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": [round(value, 2) for value in psutil.getloadavg()],
        "packages": {name: _version(name) for name in ("loramux", "locust", "gevent", "geventhttpclient", "litellm")},
        "command": " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
