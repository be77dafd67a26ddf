#!/bin/sh
# Install the CPU build of torch into the environment of the given Python. It is on PyTorch's own index and not on
# PyPI, so the configured sources are asked first, as a site may mirror it, and that index after them. torch.txt holds
# the hash for CPython 3.11 on x86-64; other platforms take the same version without one.
set -eu
python=$1
locks=$(dirname "$0")
index=https://download.pytorch.org/whl/cpu
pip() { "$python" -m pip --disable-pip-version-check --quiet install --no-deps "$@"; }

if [ "$("$python" -c 'import platform, sys; print(platform.machine(), *sys.version_info[:2])')" = "x86_64 3 11" ]; then
    set -- --require-hashes -r "$locks/torch.txt"
else
    set -- -r "$locks/torch.in"
fi
pip "$@" 2>/dev/null || pip --index-url "$index" "$@"
