"""The control plane's own parts, put together for `bootstrap.py`."""

import asyncio

from loramux_adapters.lifecycle import Lifecycle
from loramux_adapters.ports import Clock
from loramux_adapters.registry import Registry
from loramux_serving.sagemaker.adapter_components import AdapterComponents
from loramux_serving.sagemaker.base_component import BaseComponent
from loramux_serving.sagemaker.components import Components
from loramux_serving.sagemaker.control_plane import ControlPlane
from loramux_serving.sagemaker.endpoint_configs import EndpointConfigs
from loramux_serving.sagemaker.endpoints import Endpoints
from loramux_serving.sagemaker.fleet_desk import FleetDesk
from loramux_serving.sagemaker.inventory import Inventory
from loramux_serving.sagemaker.models import Models
from loramux_serving.sagemaker.ports import Copies, Misfits, Trouble
from loramux_serving.sagemaker.tags import Tags
from loramux_serving.sagemaker.tending import Tending


def build_control_plane(
    inventory: Inventory,
    registry: Registry,
    lifecycle: Lifecycle,
    copies: Copies,
    misfits: Misfits,
    trouble: Trouble,
    clock: Clock,
    *,
    start_timeout_s: float,
    account: str,
) -> ControlPlane:
    turn = asyncio.Lock()
    desk = FleetDesk(inventory, copies, misfits, trouble, clock, start_timeout_s=start_timeout_s)
    models = Models(inventory, clock)
    configs = EndpointConfigs(inventory, models, clock)
    endpoints = Endpoints(inventory, configs, models, desk, clock)
    base = BaseComponent(inventory, endpoints, models, desk, clock)
    adapters = AdapterComponents(inventory, base, registry, lifecycle, clock)
    components = Components(inventory, base, adapters, registry, lifecycle)
    return ControlPlane(
        inventory,
        Tending(inventory, desk, registry, lifecycle, clock, turn),
        turn,
        models=models,
        endpoint_configs=configs,
        endpoints=endpoints,
        components=components,
        tags=Tags(inventory, components.resource),
        account=account,
    )
