"""The gateway: HTTP in, vLLM behind. May import `loramux_adapters`."""

from importlib.metadata import version

__version__ = version("loramux")
