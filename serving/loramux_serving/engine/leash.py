"""Runs one engine so that nothing of it outlives the gateway: `python -I -S leash.py PROGRAM [ARGUMENT…]`.

vLLM is a tree of processes, and killing its API server with SIGKILL leaves EngineCore and its workers running, with
all their memory (seen with 0.32). `PR_SET_PDEATHSIG` reaches only a direct child, and only while the thread that
forked it lives. A pipe has neither gap: the gateway holds the write end of this process's standard input and never
writes to it, so its end tells that the gateway is gone, however it went.

Guarantees, for a leash started as the leader of a process group:
- the program ends: what is left of the group is killed, this process last, after a line that gives its status;
- standard input ends: the whole group is killed at once;
- SIGTERM and SIGINT are passed on to the program, once each.

It runs without site-packages and imports nothing of loramux, so that it starts in milliseconds and takes little
memory. POSIX only.
"""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import NoReturn


def main(argv: list[str]) -> NoReturn:
    # Passing a signal on waits for `Popen` to return, so that none is lost between.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=_unblock)
    except OSError as error:
        _say(f"can not run {argv[0]}: {error.strerror}")
        _end_group()

    def forward(number: int, _frame: FrameType | None) -> None:
        program.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    threading.Thread(target=_end_with_gateway, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    status = program.wait()
    _say(f"the engine ended by signal {-status}" if status < 0 else f"the engine ended with status {status}")
    _end_group()


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})


def _end_with_gateway() -> None:
    while os.read(0, 1024):
        pass
    _end_group()


def _end_group() -> NoReturn:
    os.killpg(os.getpgid(0), signal.SIGKILL)
    raise SystemExit(1)  # not reached: the group includes this process


def _say(text: str) -> None:
    print(f"leash: {text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
