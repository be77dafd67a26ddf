#!/bin/sh
# wrk, which makes the load of `loramux bench overhead`. Where it is missing and this may install Debian packages, it does.
set -eu
command -v wrk >/dev/null 2>&1 && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "wrk is not here (Debian: apt-get install wrk): what it loads is left out." >&2
    exit 0
fi
echo "Installing wrk ..."
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --no-install-recommends wrk >/dev/null
