"""Builds the gateway. The only file that names concrete classes; nothing here starts anything."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry

from loramux_adapters.artifacts.disk import DiskStore
from loramux_adapters.artifacts.hub import HubSource
from loramux_adapters.artifacts.limits import ArchiveLimits
from loramux_adapters.artifacts.local import LocalSource
from loramux_adapters.artifacts.s3 import S3Source
from loramux_adapters.artifacts.sources import Sources
from loramux_adapters.artifacts.upload import UploadSource
from loramux_adapters.base import describe_base
from loramux_adapters.clock import SystemClock
from loramux_adapters.errors import RequestInvalid, SettingsInvalid
from loramux_adapters.events import EventLog
from loramux_adapters.library import Library
from loramux_adapters.lifecycle import Lifecycle
from loramux_adapters.manager import AdapterManager, TierPolicy
from loramux_adapters.model import Capabilities, Tier
from loramux_adapters.pointers import Pointers
from loramux_adapters.ports import ArtifactSource, Clock
from loramux_adapters.progress import ProgressBoard
from loramux_adapters.registry import Registry
from loramux_adapters.store.database import Database
from loramux_adapters.store.keys import SqlKeyStore
from loramux_adapters.store.registry import SqlRegistryStore
from loramux_adapters.store.resources import SqlResourceStore
from loramux_serving import __version__
from loramux_serving.admission.fair_admission import FairAdmission
from loramux_serving.auth.admin_key import open_admin_key
from loramux_serving.auth.key_desk import KeyDesk
from loramux_serving.auth.keyring import KeyRing
from loramux_serving.auth.master_key import MasterKey
from loramux_serving.auth.signers import Signers
from loramux_serving.auth.verifier import Verifier
from loramux_serving.base.default import TOOL_CALL_PARSER as DEFAULT_TOOL_CALL_PARSER
from loramux_serving.canary_watch import CanaryWatch
from loramux_serving.engine.client import VllmEngine
from loramux_serving.engine.copies import Copies
from loramux_serving.engine.fleet import Fleet
from loramux_serving.engine.host import Host, child, elsewhere
from loramux_serving.engine.replica import EngineReplica
from loramux_serving.engine.spec import LaunchPlan, plan_launch
from loramux_serving.engine.supervisor import Patience, Supervisor
from loramux_serving.foreign.settings import asked_settings, differences
from loramux_serving.gateway import Gateway
from loramux_serving.home import Home
from loramux_serving.relay.doors import DoorPlan, make_doors
from loramux_serving.relay.grants import Grants
from loramux_serving.relay.handler import Relay
from loramux_serving.relay.local_gate import LocalGate
from loramux_serving.sagemaker.assembly import build_control_plane
from loramux_serving.sagemaker.control_plane import ControlPlane
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.names import ComponentNames
from loramux_serving.services import Services
from loramux_serving.settings import ArtifactSettings, Settings
from loramux_serving.telemetry.metrics import Metrics
from loramux_serving.telemetry.record_batch import RecordBatch
from loramux_serving.telemetry.request_log import RequestLog
from loramux_serving.telemetry.usage import UsageLedger
from loramux_serving.uploads import UploadDesk
from loramux_serving.workers.crew import Crew


def build(settings: Settings, base_dir: Path, base_name: str, database: Database) -> tuple[Services, Gateway]:
    """All parts, not yet running. Raises `SettingsInvalid`, `EngineConfigInvalid`, `StorageError`."""
    clock = SystemClock()
    home = Home(settings.home)
    events = EventLog(clock)
    key_store = SqlKeyStore(database)
    has_keys = any(key.revoked_at is None for key in key_store.list_keys())
    admin_key = open_admin_key(settings, has_keys=has_keys)
    master_key = MasterKey(settings)
    signers = Signers(master_key, Verifier(clock, clock_skew_s=settings.auth.clock_skew_s))
    keyring = KeyRing(admin_digest=admin_key.digest, anonymous=settings.allow_anonymous, signers=signers)
    metrics = Metrics(
        CollectorRegistry(), max_adapters=settings.metrics.max_adapters, version=__version__, base=base_name
    )

    source = _sources(settings.artifacts, home)
    registry = Registry(SqlRegistryStore(database), source, clock, events, base_name=base_name)
    library = Library(
        source,
        DiskStore(
            home.artifacts,
            capacity_bytes=settings.artifacts.disk_bytes,
            reserve_bytes=settings.artifacts.disk_reserve_bytes,
        ),
        describe_base(base_dir, base_name, settings.engine.max_lora_rank),
        protected=lambda: registry.snapshot.protected_digests | manager.in_engines() | pointers.kept_digests(),
        source_of=registry.source_of,
        give_way=lambda: pointers.give_way(),
        check_finite=settings.artifacts.check_finite,
        workers=settings.artifacts.fetch_workers,
        refetched=partial(metrics.adapter_loaded, Tier.REMOTE, Tier.DISK),
    )
    manager = AdapterManager(
        library.locate,
        lambda: registry.snapshot.pins,
        clock,
        metrics,
        engines_wanted=lambda: copies.wanted > 0,
        room_timeout_s=settings.admission.queue_timeout_s,
        drain_timeout_s=settings.registry.drain_timeout_s,
        policy=TierPolicy(
            demand_half_life_s=settings.tiers.demand_half_life_s,
            inline_activation_bytes=settings.tiers.inline_activation_bytes,
            prefetch_concurrency=settings.tiers.prefetch_concurrency,
        ),
    )
    pointers = Pointers(registry, manager, library, events, clock, keep_previous_s=settings.registry.keep_previous_s)
    canaries = CanaryWatch(registry, pointers, clock, then=metrics)
    usage = UsageLedger(clock, then=canaries)
    lifecycle = Lifecycle(registry, manager, library, pointers, ProgressBoard(), events, clock, metrics)

    http = httpx.AsyncClient(
        timeout=settings.engine.load_timeout_s,
        limits=httpx.Limits(max_connections=64),
        trust_env=False,  # a proxy of the environment is not for engines
    )
    replicas = _replicas(settings, clock)
    fleet = Fleet(replicas, manager.tiers_on, slots=settings.engine.max_loras)
    admission = FairAdmission(settings.admission, clock, ready_replicas=fleet.count_ready, slots=fleet.slots)
    for replica in replicas:
        replica.when_ready(admission.capacity_changed)
    request_log = RequestLog(settings.log, then=usage)
    records = RecordBatch(request_log)
    inventory = Inventory(SqlResourceStore(database), registry)
    names = ComponentNames(registry, inventory, account=settings.sagemaker.account)
    grants = Grants(registry.lasting)
    registry.on_publish(grants.forget)
    keyring.on_replace(grants.forget)
    gate = LocalGate(keyring, names, admission, fleet, manager, records, retries=settings.relay.retries, grants=grants)
    doors = DoorPlan(base_name, settings.engine.max_model_len, settings.sagemaker.account)
    relay = Relay(settings.relay, gate, make_doors(doors))
    # What is taken for granted of an engine without our plugin, which can not be asked.
    assumed = Capabilities(
        dynamic_lora=True,
        max_loras=settings.engine.max_loras,
        max_cpu_loras=settings.engine.max_cpu_loras,
        max_lora_rank=settings.engine.max_lora_rank,
        evict=False,
    )
    supervisors = [
        Supervisor(
            replica,
            VllmEngine(replica, http, load_timeout_s=settings.engine.load_timeout_s, assumed=assumed),
            _host(settings, index, base_dir, base_name),
            http,
            patience=Patience(
                start_timeout_s=settings.engine.start_timeout_s,
                restart_backoff_s=settings.engine.restart_backoff_s,
                restart_backoff_max_s=settings.engine.restart_backoff_max_s,
            ),
            health_interval_s=settings.engine.health_interval_s,
            on_ready=lambda engine: gateway.attach(engine),
            on_lost=lambda replica_id: gateway.detach(replica_id),
        )
        for index, replica in enumerate(replicas)
    ]
    copies = Copies(
        supervisors,
        events,
        wanted=settings.engine.first_replicas,
        drain_timeout_s=settings.shutdown_timeout_s,
        busy=manager.in_use,
        detach=lambda replica_id: gateway.detach(replica_id),
        most="engine.urls has so many" if settings.engine.url_list else "as engine.replicas says",
    )
    services = Services(
        settings=settings,
        clock=clock,
        events=events,
        registry=registry,
        lifecycle=lifecycle,
        pointers=pointers,
        manager=manager,
        library=library,
        uploads=UploadDesk(
            home.uploads, max_bytes=settings.artifacts.max_archive_bytes, max_files=settings.artifacts.max_files
        ),
        fleet=fleet,
        copies=copies,
        sagemaker=_sagemaker(settings, base_name, inventory, registry, lifecycle, copies, fleet, clock),
        http=http,
        relay=relay,
        admission=admission,
        keyring=keyring,
        key_desk=KeyDesk(key_store, keyring, clock, master_key),
        metrics=metrics,
        usage=usage,
        request_log=request_log,
        records=records,
        canaries=canaries,
        crew=Crew(settings, doors, gate, request_log, clock, events, metrics.worker_restarted),
    )
    gateway = Gateway(services)
    return services, gateway


def _sagemaker(
    settings: Settings,
    base_name: str,
    inventory: Inventory,
    registry: Registry,
    lifecycle: Lifecycle,
    copies: Copies,
    fleet: Fleet,
    clock: Clock,
) -> ControlPlane:
    def misfits(environment: Mapping[str, str]) -> Sequence[str]:
        try:
            return differences(asked_settings(environment, settings.engine.kind), settings, base_name)
        except SettingsInvalid as error:
            raise RequestInvalid(error.message) from error

    def trouble() -> str:
        return next((status.detail for status in fleet.statuses() if status.detail), "")

    return build_control_plane(
        inventory,
        registry,
        lifecycle,
        copies,
        misfits,
        trouble,
        clock,
        start_timeout_s=settings.engine.start_timeout_s,
        account=settings.sagemaker.account,
    )


def _sources(settings: ArtifactSettings, home: Home) -> ArtifactSource:
    limits = ArchiveLimits(
        max_archive_bytes=settings.max_archive_bytes,
        max_unpacked_bytes=settings.max_unpacked_bytes,
        max_files=settings.max_files,
        max_ratio=settings.max_ratio,
    )
    known: Mapping[str, ArtifactSource] = {
        "file": LocalSource(settings.roots, limits),
        "s3": S3Source(limits, endpoint_url=settings.s3_endpoint_url or None, timeout_s=settings.fetch_timeout_s),
        "hf": HubSource(limits, timeout_s=settings.fetch_timeout_s),
    }
    allowed: dict[str, ArtifactSource] = {scheme: known[scheme] for scheme in settings.schemes}
    return Sources({**allowed, "upload": UploadSource(home.uploads, limits)})


def _replicas(settings: Settings, clock: Clock) -> list[EngineReplica]:
    urls = settings.engine.url_list or ("",) * settings.engine.replicas
    return [EngineReplica(f"engine-{index}", clock=clock, url=url) for index, url in enumerate(urls)]


def _host(settings: Settings, index: int, base_dir: Path, base_name: str) -> Host:
    """Somebody else's engine where addresses are given, else a child process of ours."""
    engine = settings.engine
    if engine.url_list:
        return elsewhere
    if not engine.model and not engine.tool_call_parser:
        engine = engine.model_copy(update={"tool_call_parser": DEFAULT_TOOL_CALL_PARSER})

    def plan(port: int) -> LaunchPlan:
        return plan_launch(
            engine,
            model_dir=str(base_dir),
            served_name=base_name,
            port=port,
            replica_index=index,
            host_env=os.environ,
        )

    return child(plan, port=engine.port + index if engine.port else 0, stop_timeout_s=engine.stop_timeout_s)
