"""`loramux serve`: the gateway and its engines, in the foreground."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 for any free one.")] = None,
    model: Annotated[str | None, typer.Option(help="Base: a directory, hub id or s3://. Default: embedded.")] = None,
    engine_urls: Annotated[str | None, typer.Option(help="vLLM servers that run already, comma-separated.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that carry requests; see docs/operations.md.")] = None,
    demo: Annotated[Path | None, typer.Option(help="Directory of demo adapters to register at the start.")] = None,
) -> None:
    """Start the gateway and its engines. Ctrl-C ends them all.

    Every setting can be given in the file or the environment too; docs/settings.md lists them.
    """
    # Imported here: the other commands only speak HTTP, and start without all this.
    from loramux_serving.server import run
    from loramux_serving.settings_sources import load

    loaded = load(
        config,
        host=host,
        port=port,
        workers=workers,
        engine={"model": model, "urls": engine_urls},
    )
    run(loaded.settings, demo, loaded.notices)
