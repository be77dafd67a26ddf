"""The gateway's parts, built once by `bootstrap.build` and handed to whoever needs them."""

from dataclasses import dataclass

import httpx

from loramux_adapters.events import EventLog
from loramux_adapters.library import Library
from loramux_adapters.lifecycle import Lifecycle
from loramux_adapters.manager import AdapterManager
from loramux_adapters.pointers import Pointers
from loramux_adapters.ports import Clock
from loramux_adapters.registry import Registry
from loramux_serving.admission.fair_admission import FairAdmission
from loramux_serving.auth.key_desk import KeyDesk
from loramux_serving.auth.keyring import KeyRing
from loramux_serving.canary_watch import CanaryWatch
from loramux_serving.engine.copies import Copies
from loramux_serving.engine.fleet import Fleet
from loramux_serving.relay.handler import Relay
from loramux_serving.sagemaker.control_plane import ControlPlane
from loramux_serving.settings import Settings
from loramux_serving.telemetry.metrics import Metrics
from loramux_serving.telemetry.record_batch import RecordBatch
from loramux_serving.telemetry.request_log import RequestLog
from loramux_serving.telemetry.usage import UsageLedger
from loramux_serving.uploads import UploadDesk
from loramux_serving.workers.crew import Crew


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    clock: Clock
    events: EventLog
    registry: Registry
    lifecycle: Lifecycle
    pointers: Pointers
    manager: AdapterManager
    library: Library
    uploads: UploadDesk
    fleet: Fleet
    copies: Copies
    sagemaker: ControlPlane
    http: httpx.AsyncClient
    relay: Relay
    admission: FairAdmission
    keyring: KeyRing
    key_desk: KeyDesk
    metrics: Metrics
    usage: UsageLedger
    request_log: RequestLog
    records: RecordBatch
    canaries: CanaryWatch
    crew: Crew
