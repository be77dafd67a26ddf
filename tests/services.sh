#!/bin/sh
# What the tests need besides Python packages: a PostgreSQL server's programs, which the tests start themselves, a browser
# to look at pages with, and wrk, which makes load. Where they are missing and this may install Debian packages, it does.
set -eu
wanted=""
command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || wanted="postgresql"
command -v chromium >/dev/null 2>&1 || wanted="$wanted chromium fonts-dejavu-core"
command -v wrk >/dev/null 2>&1 || wanted="$wanted wrk"

[ -z "$wanted" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Not here (Debian: apt-get install $wanted); the tests that need it will be skipped." >&2
    exit 0
fi
echo "Installing for the tests: $wanted ..."
mkdir -p /etc/postgresql-common
printf 'create_main_cluster = false\n' > /etc/postgresql-common/createcluster.conf
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086  # one argument a package
apt-get -qq install --no-install-recommends $wanted >/dev/null
