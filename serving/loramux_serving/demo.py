"""Registers the demo adapters when the gateway has come up, and says what to try."""

import asyncio
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from loramux_adapters.errors import LoramuxError, SettingsInvalid
from loramux_adapters.model import OperationState
from loramux_serving.services import Services
from loramux_serving.settings import Settings

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Demo:
    """A directory with `prompts.toml`, whose tables `[adapters.NAME]` name directories below `adapters/`. One with
    `update_of` is a later version of another, for whoever tries an update."""

    directory: Path

    def names(self) -> list[str]:
        """Raises `SettingsInvalid` where the directory is none of that kind."""
        try:
            with (self.directory / "prompts.toml").open("rb") as file:
                adapters = tomllib.load(file)["adapters"]
            return [name for name, about in adapters.items() if "update_of" not in about]
        except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
            raise SettingsInvalid(f"--demo: {self.directory} holds no demo: {error}") from error

    def allowed(self, settings: Settings) -> Settings:
        """The settings with the demo's adapters among the allowed sources."""
        roots = [*settings.artifacts.roots, (self.directory / "adapters").absolute()]
        return settings.model_copy(update={"artifacts": settings.artifacts.model_copy(update={"roots": roots})})

    @asynccontextmanager
    async def loading(self, services: Services, address: str) -> AsyncIterator[None]:
        task = asyncio.create_task(self._load(services, address), name="demo")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _load(self, services: Services, address: str) -> None:
        async with services.events.subscribe(after=0) as events:
            async for event in events:
                if event.type == "replica.attached":
                    break
        for name in self.names():
            if name in services.registry.snapshot.state.adapters:
                continue
            source = str((self.directory / "adapters" / name).absolute())
            try:
                _, _, operation = await services.registry.add(name, source, base=None, promote=True, pin=None)
                services.lifecycle.begin(operation)
                ended = await services.lifecycle.wait(operation.id)
            except LoramuxError as error:
                _log.error("demo adapter not registered", adapter=name, code=error.code, reason=error.message)
                continue
            if ended.state is OperationState.FAILED and ended.failure is not None:
                _log.error("demo adapter failed", adapter=name, code=ended.failure.code, reason=ended.failure.message)
        print(self._hints(services, address), flush=True)

    def _hints(self, services: Services, address: str) -> str:
        snapshot = services.registry.snapshot
        names = sorted(snapshot.names)
        model = names[0] if names else snapshot.base.adapter
        given = services.settings.admin_key is not None
        key = "$LORAMUX_ADMIN_KEY" if given else f"$(cat {services.settings.home / 'admin.key'})"
        return "\n".join(
            (
                "",
                "loramux is ready",
                "",
                f"Gateway   {address}   (docs: {address}/docs)",
                f"Base      {snapshot.base.adapter}",
                f"Adapters  {', '.join(names) or 'none'}",
                f"Key       {'LORAMUX_ADMIN_KEY' if given else services.settings.home / 'admin.key'}",
                "",
                "Try, in another terminal:",
                "  .venv/bin/loramux try",
                "  .venv/bin/loramux adapters list",
                f'  curl {address}/v1/chat/completions -H "Authorization: Bearer {key}" \\',
                '       -H "Content-Type: application/json" \\',
                f"""       -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'""",
                "",
                "Ctrl-C ends the gateway and the engine.",
            )
        )
