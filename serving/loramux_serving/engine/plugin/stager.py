"""The process that reads adapters, so that no process of the engine has to: `python -m …plugin.stager`.

One beside each engine, at a low priority, a child of the API server, which `staging.Stager` starts. It loads with
vLLM's own code (`WorkerLoRAManager._load_adapter`, `LoRAModelManager._create_merged_loras_inplace`) over what a worker
said of its model, so that the result is what the engine would have made itself, and leaves it in a slab.

Lines of JSON on standard input and output; it ends when its input does.

    in   {"recipe": base64 of a pickled `Recipe`}                      once, first
    out  {"ready": true}
    in   {"job": n, "path": directory}
    out  {"job": n, "slab": path, "bytes": n}  or  {"job": n, "refused": reason}  or  {"job": n, "unable": reason}
    in   {"drop": n}                                                    the slab of job n was taken, or nobody wants it

`refused` is the adapter's fault, and vLLM would refuse it too. `unable` says nothing of the adapter.
"""

import base64
import json
import os
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, TextIO

_NICENESS = 10
"""By default. On a machine whose cores are all busy with the engine, it gets a tenth of one."""

_MOST_REST_S = 1.0
"""Between two loads."""

_UNABLE = (AttributeError, TypeError, NotImplementedError, ImportError, MemoryError)
"""Of errors while loading, those that tell of this code and of the machine. A file that is not there is the
adapter's, and so is every other error of vLLM's loader."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a worker's model takes, in vLLM's own terms and types. `packed_modules` is of all workers together."""

    supported_lora_modules: list[str]
    packed_modules_mapping: dict[str, list[str]]
    packed_modules: dict[str, list[str]]
    hf_to_vllm_mapper: Any
    lora_skip_prefixes: Any
    lora_config: Any
    max_position_embeddings: int | None
    vocab_size: int


class Loader:
    """vLLM's loader without vLLM's engine. Thread-safe."""

    def __init__(self, recipe: Recipe) -> None:
        """Imports vllm. Raises `ImportError`, `AttributeError` where this vLLM is another than we know."""
        import vllm.lora.lora_model as lora_model
        import vllm.lora.model_manager as model_manager
        import vllm.lora.worker_manager as worker_manager
        from vllm.lora.request import LoRARequest

        for module in (lora_model, model_manager):
            # Pinned memory can not be shared between processes: the workers pin what they map.
            module.PIN_MEMORY = False
            module.is_pin_memory_available = lambda: False
        self._request = LoRARequest
        self._manager = manager = object.__new__(model_manager.LoRAModelManager)
        manager.supported_lora_modules = recipe.supported_lora_modules
        manager.packed_modules_mapping = recipe.packed_modules_mapping
        manager.packed_modules = recipe.packed_modules
        manager.modules = {}
        manager.model = _Model(recipe.hf_to_vllm_mapper, recipe.lora_skip_prefixes)
        manager.lora_config = recipe.lora_config
        manager.moe_ep_load_spec = None
        manager.is_pooling_model = False
        for name in ("_enable_mixed_moe_lora_format", "_enable_moe_shared_loras", "_is_non_gated_moe", "_is_moe"):
            setattr(manager, name, False)
        manager._pooling_task = manager._classification_head = None
        self._worker = worker = object.__new__(worker_manager.WorkerLoRAManager)
        worker._adapter_manager = manager
        worker._lora_model_cls = lora_model.LoRAModel
        worker.lora_config = recipe.lora_config
        worker.max_position_embeddings = recipe.max_position_embeddings
        worker.vocab_size = recipe.vocab_size
        self._load = worker._load_adapter
        self._pack = manager._create_merged_loras_inplace

    def load(self, path: str) -> tuple[int, int]:
        """A slab's file descriptor and size, bytes. Raises what vLLM raises."""
        from loramux_serving.engine.plugin.slab import Weights, write

        lora = self._load(self._request(lora_name=path, lora_int_id=1, lora_path=path))
        if getattr(lora, "modules_to_save", None):
            raise NotImplementedError("full modules are not staged")
        self._pack(lora)
        loras = {}
        for name, layer in lora.loras.items():
            alpha = layer.lora_alphas if layer.is_packed else layer.lora_alpha
            loras[name] = Weights(layer.rank, alpha, layer.lora_a, layer.lora_b)
        return write(lora.rank, loras)


class _Model:
    """What the loader asks the model for."""

    def __init__(self, hf_to_vllm_mapper: Any, lora_skip_prefixes: Any) -> None:
        self.hf_to_vllm_mapper = hf_to_vllm_mapper
        self.lora_skip_prefixes = lora_skip_prefixes


class _Desk:
    """Jobs in, answers out."""

    def __init__(self, loader: Loader, out: TextIO, threads: int) -> None:
        self._loader = loader
        self._out = out
        self._turn = Lock()
        self._slabs: dict[int, int] = {}
        self._pool = ThreadPoolExecutor(threads, "stage")

    def take(self, order: dict[str, Any]) -> None:
        if "drop" in order:
            fd = self._slabs.pop(order["drop"], None)
            if fd is not None:
                os.close(fd)
        else:
            self._pool.submit(self._run, order["job"], order["path"])

    def _run(self, job: int, path: str) -> None:
        """A load that had to wait for a processor took it from others before that, in whose steps all streams wait: the
        next one stands back for as long. With a low priority alone it would take what it gets."""
        waited_s = _waited_s()
        self._load(job, path)
        time.sleep(min(_waited_s() - waited_s, _MOST_REST_S))

    def _load(self, job: int, path: str) -> None:
        try:
            fd, size = self._loader.load(path)
        except FileNotFoundError as error:
            self.say({"job": job, "refused": f"there is no adapter at {path}: {error}"})
        except _UNABLE as error:
            self.say({"job": job, "unable": f"{type(error).__name__}: {error}"})
        except OSError as error:
            self.say({"job": job, "unable": str(error)})
        except Exception as error:  # vLLM raises all kinds for an adapter that it does not like
            self.say({"job": job, "refused": str(error) or type(error).__name__})
        else:
            self._slabs[job] = fd
            self.say({"job": job, "slab": f"/proc/{os.getpid()}/fd/{fd}", "bytes": size})

    def say(self, answer: dict[str, Any]) -> None:
        with self._turn:
            print(json.dumps(answer), file=self._out, flush=True)


def _waited_s() -> float:
    """How long this thread has been ready to run, and another one did; 0 where the kernel does not tell."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def main() -> None:
    # What libraries print must not come between the answers.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.nice(int(os.environ.get("LORAMUX_STAGING_NICENESS", _NICENESS)))
    threads = max(1, int(os.environ.get("LORAMUX_STAGING_WORKERS", "1")))
    first = sys.stdin.readline()
    if not first:
        return
    import torch

    torch.set_num_threads(1)
    recipe = pickle.loads(base64.b64decode(json.loads(first)["recipe"]))
    desk = _Desk(Loader(recipe), out, threads)
    desk.say({"ready": True})
    for line in sys.stdin:
        desk.take(json.loads(line))
    os._exit(0)  # loads under way are for nobody


if __name__ == "__main__":
    main()
