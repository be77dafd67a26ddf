#!/bin/sh
# What the tests need besides Python packages: a PostgreSQL server's programs, which the tests start themselves. Where
# they are missing and this may install Debian packages, it does.
set -eu
have_postgres() { command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }

have_postgres && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "No PostgreSQL programs here (Debian: apt-get install postgresql); its tests will be skipped." >&2
    exit 0
fi
echo "Installing PostgreSQL's programs for the tests ..."
mkdir -p /etc/postgresql-common
printf 'create_main_cluster = false\n' > /etc/postgresql-common/createcluster.conf
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --no-install-recommends postgresql >/dev/null
