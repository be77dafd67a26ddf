"""How many accelerators an engine could use, as the operating system and the environment tell it."""

from collections.abc import Mapping
from pathlib import Path


def count_accelerators(kind: str, environment: Mapping[str, str], devices: Path = Path("/dev")) -> int | None:
    """For an engine of that kind; None where it can not be told. A CPU counts as one.

    CUDA: those that `CUDA_VISIBLE_DEVICES` names, else the devices that the driver made. Neuron: cores, which only
    `NEURON_RT_VISIBLE_CORES` (`0-3,6`) or `NEURON_RT_NUM_CORES` tell: how many a device has differs.
    """
    if kind == "cpu":
        return 1
    if kind == "cuda":
        named = [device for device in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if device.strip()]
        return len(named) or sum(path.name[6:].isdecimal() for path in devices.glob("nvidia*")) or None
    visible = environment.get("NEURON_RT_VISIBLE_CORES", "").strip()
    if visible:
        return _cores(visible)
    number = environment.get("NEURON_RT_NUM_CORES", "").strip()
    return int(number) if number.isdecimal() and int(number) else None


def _cores(text: str) -> int | None:
    """Of ranges that include both their ends."""
    count = 0
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            return None
        count += int(last or first) - int(first) + 1
    return count if count > 0 else None
