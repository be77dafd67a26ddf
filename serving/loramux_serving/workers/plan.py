"""What a worker is told at its start."""

import msgspec

from loramux_serving.relay.doors import DoorPlan


class WorkerPlan(msgspec.Struct, frozen=True):
    """Travels as JSON in the worker's command line, so it holds no secret. File descriptors are inherited."""

    index: int
    """Its number among the workers, from 0."""
    channel_fd: int
    """Its end of a connected pair of sockets."""
    listener_fd: int
    """A socket that listens on the public port."""
    control_pid: int
    control_path: str
    """The Unix socket at which the control process answers everything but inference."""
    doors: DoorPlan
    shutdown_timeout_s: float
    relay: msgspec.Raw
    """`RelaySettings`, as JSON; likewise `log`."""
    log: msgspec.Raw
