#!/bin/sh
# Make the lock files anew: for every platform and Python >= 3.11, with hashes. `dev` holds all, and the smaller ones
# are cut from it, so that one environment can grow from one to the next without changing a version.
set -eu
cd "$(dirname "$0")/../.."
locks=deploy/locks
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv

# uv reads its own settings, not pip's: hand on where pip would find torch's CPU build, else PyTorch's own index.
links=$("$work/venv/bin/pip" config get global.find-links 2>/dev/null || true)
links=${links:-https://download.pytorch.org/whl/cpu/torch/}

compile() { # name, further arguments
    name=$1
    shift
    "$work/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-package torch --no-annotate --no-emit-find-links \
        --custom-compile-command "make lock" --override "$locks/overrides.txt" \
        --find-links "$links" \
        "$@" pyproject.toml "$locks/build.in" --output-file "$work/$name.txt"
}

compile dev --extra cpu --extra postgres --extra bench --extra dev "$locks/torch.in"
compile cpu --extra cpu "$locks/torch.in" --constraint "$work/dev.txt"
compile gateway --constraint "$work/dev.txt"
compile bench --extra bench --constraint "$work/dev.txt"

# Clients that examples/ is run with, and other gateways to measure beside: environments of their own, which have
# nothing to do with ours.
for name in clients peers; do
    "$work/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
        --custom-compile-command "make lock" "$locks/$name.in" --output-file "$work/$name.txt"
done
for name in gateway cpu bench dev clients peers; do mv "$work/$name.txt" "$locks/$name.txt"; done
