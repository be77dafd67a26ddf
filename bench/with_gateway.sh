#!/bin/sh
# Run a command against a gateway: the one that answers at LORAMUX_URL or on this machine's port, else one with the demo
# adapters that is started for it on another port, with a home of its own, and ended after it.
#
#   bench/with_gateway.sh .venv/bin/loramux bench run smoke
set -eu
bin=$(dirname "$0")/../.venv/bin
url=${LORAMUX_URL:-http://127.0.0.1:${LORAMUX_PORT:-8080}}
ready() { "$bin/python" -c 'import sys, httpx; httpx.get(sys.argv[1] + "/readyz", timeout=2).raise_for_status()' "$1" 2>/dev/null; }

if ready "$url"; then
    echo "Using the gateway at $url."
    LORAMUX_URL=$url exec "$@"
fi

home=$(mktemp -d)
LORAMUX_HOME=$home
LORAMUX_PORT=$("$bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
LORAMUX_URL=http://127.0.0.1:$LORAMUX_PORT
export LORAMUX_HOME LORAMUX_PORT LORAMUX_URL
echo "Starting a gateway for it at $LORAMUX_URL (some 20 s to a minute) ..."
"$bin/loramux" serve --demo "$(dirname "$0")/../deploy/demo" >"$home/serve.log" 2>&1 &
gateway=$!
trap 'kill "$gateway" 2>/dev/null; wait "$gateway" 2>/dev/null || true; rm -rf "$home"' EXIT INT TERM
waited=0
until ready "$LORAMUX_URL"; do
    if ! kill -0 "$gateway" 2>/dev/null || [ "$waited" -ge 300 ]; then
        echo "The gateway did not come up. It said:" >&2
        tail -20 "$home/serve.log" >&2
        exit 1
    fi
    sleep 1
    waited=$((waited + 1))
done
"$@"
