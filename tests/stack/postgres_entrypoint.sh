#!/bin/sh
# What the entry point of PostgreSQL's image does when it starts on an empty volume, and then becomes the server.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    password=$(mktemp)
    echo "$POSTGRES_PASSWORD" >"$password"
    initdb --username postgres --pwfile "$password" --auth-local trust --auth-host scram-sha-256 >/dev/null
    rm "$password"
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait --options "-c listen_addresses=''" start >/dev/null
    for script in /docker-entrypoint-initdb.d/*.sh; do
        "$script"
    done
    pg_ctl --wait --mode fast stop >/dev/null
fi
exec "$@" -c "listen_addresses=*"
